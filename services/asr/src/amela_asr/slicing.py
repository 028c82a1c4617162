"""Pieces out of audio that comes in blocks."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from amela_common.audio import Clip
from amela_common.voice.pieces import Piece
from numpy.typing import NDArray


def slices(
    blocks: Iterable[NDArray[np.float32]], pieces: Iterable[Piece], sample_rate: int
) -> Iterator[list[Clip]]:
    """Yield, after each block, the clips of the pieces that it completes.

    No more is held than the block and what the next pieces need of earlier ones.

    Parameters
    ----------
    blocks
        float32[n] each: mono samples from the start of the recording on.
    pieces
        In order; they may overlap.
    sample_rate
        In Hz.
    """
    waiting = deque(pieces)
    held, origin = np.empty(0, np.float32), 0

    def clip(piece: Piece) -> Clip:
        start, stop = round(piece.start * sample_rate), round(piece.end * sample_rate)
        return Clip(held[start - origin : stop - origin].copy(), sample_rate)

    for block in blocks:
        held = np.concatenate([held, block])
        end = origin + len(held)
        complete = []
        while waiting and round(waiting[0].end * sample_rate) <= end:
            complete.append(clip(waiting.popleft()))
        yield complete
        if not waiting:
            return
        past = min(len(held), max(0, round(waiting[0].start * sample_rate) - origin))
        held, origin = held[past:], origin + past
    # Resampling can leave the recording a sample shorter than its last piece.
    yield [clip(piece) for piece in waiting]

"""Slicing: pieces out of blocks are what slicing the whole recording gives."""

from collections.abc import Iterator

import numpy as np
import pytest
from amela_asr.slicing import slices
from amela_common.audio import Clip
from amela_common.voice.pieces import Piece
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

RATE = 10


def counting(length: int) -> NDArray[np.float32]:
    return np.arange(length, dtype=np.float32)


def blocks_of(samples: NDArray[np.float32], lengths: list[int]) -> Iterator[NDArray[np.float32]]:
    """Cut samples into blocks of these lengths, again and again."""
    position = 0
    while position < len(samples):
        for length in lengths:
            if position < len(samples):
                yield samples[position : position + length]
            position += length


def sliced(samples: NDArray[np.float32], pieces: list[Piece], lengths: list[int]) -> list[Clip]:
    return [clip for clips in slices(blocks_of(samples, lengths), pieces, RATE) for clip in clips]


@st.composite
def plans(draw: st.DrawFn) -> list[Piece]:
    pieces: list[Piece] = []
    for _ in range(draw(st.integers(0, 10))):
        overlaps = bool(pieces) and draw(st.booleans())
        previous = pieces[-1] if pieces else Piece(0, 0)
        start = max(previous.start, previous.end + (-0.5 if overlaps else draw(st.floats(0, 8))))
        pieces.append(Piece(start, start + draw(st.floats(1, 5)), overlaps))
    return pieces


@given(plans(), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_clips_do_not_depend_on_the_blocks(pieces: list[Piece], lengths: list[int]) -> None:
    samples = counting(round((pieces[-1].end if pieces else 1) * RATE) + 7)

    clips = sliced(samples, pieces, lengths)

    assert len(clips) == len(pieces)
    for clip, piece in zip(clips, pieces, strict=True):
        expected = samples[round(piece.start * RATE) : round(piece.end * RATE)]
        np.testing.assert_array_equal(clip.samples, expected)
        assert clip.sample_rate == RATE


def test_a_clip_comes_as_soon_as_its_last_block_has() -> None:
    blocks = blocks_of(counting(60), [10])
    pieces = [Piece(0.5, 1.5), Piece(1.6, 2.0), Piece(4.0, 4.5)]

    assert [len(clips) for clips in slices(blocks, pieces, RATE)] == [0, 2, 0, 0, 1]


def test_nothing_is_read_beyond_the_last_piece() -> None:
    blocks = blocks_of(counting(100), [10])

    list(slices(blocks, [Piece(0, 1.5)], RATE))

    assert sum(map(len, blocks)) == 80


def test_a_recording_a_sample_shorter_than_its_last_piece_gives_what_it_has() -> None:
    [first, last] = sliced(counting(19), [Piece(0, 1), Piece(1, 2)], [10])

    assert (len(first.samples), len(last.samples)) == (10, 9)


def test_clips_do_not_hold_on_to_the_audio_around_them() -> None:
    [clip] = sliced(counting(1000), [Piece(1, 2)], [1000])

    assert clip.samples.base is None


@pytest.mark.parametrize("blocks", [[], [counting(10)]])
def test_no_pieces_are_no_clips(blocks: list[NDArray[np.float32]]) -> None:
    assert not any(slices(blocks, [], RATE))

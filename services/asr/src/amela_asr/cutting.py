"""From a recording to the clips that an engine is given: decoded, speech found, cut in pauses.

All of it runs in worker processes, through `amela_asr.front`. A recording of any length takes two
passes in bounded memory: the first finds the pieces, the second cuts them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from amela_common.audio import AudioLimits, AudioSource, Clip, read_blocks
from amela_common.pool import CHECKPOINT
from amela_common.voice import detector
from amela_common.voice.detector import Detector
from amela_common.voice.pieces import Piece, plan_pieces
from amela_common.voice.segmentation import SegmentationOptions, segment
from numpy.typing import NDArray

from amela_asr.slicing import slices

# Raised whenever this package makes other clips of the same recording.
RESULTS_VERSION = 1

MIN_PAUSE = 0.3
# Runs of speech are joined across pauses too short to cut; what is then shorter than any word is none.
SPEECH = SegmentationOptions(merge_gap=MIN_PAUSE, min_speech=0.1)


@dataclass(frozen=True)
class Survey:
    """Asks for the `Plan` of a recording.

    Attributes
    ----------
    at_most
        Length in seconds beyond which the answer is None instead. Up to there the plan comes
        with its clips. None: any length, without clips.
    """

    source: AudioSource
    at_most: float | None = None


@dataclass(frozen=True)
class Cut:
    """Asks for the clip of each piece, one after the other."""

    source: AudioSource
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """Where the speech in a recording lies.

    Attributes
    ----------
    duration
        Length of the recording in seconds.
    speech
        Length of the speech in it, in seconds.
    pieces
        What to recognise, in order. Empty: there is no speech.
    clips
        The audio of each piece. None: it is still to be cut.
    """

    duration: float
    speech: float
    pieces: tuple[Piece, ...]
    clips: tuple[Clip, ...] | None = None


class Cutter:
    """The front pool's handler.

    Parameters
    ----------
    limits
        What may be read.
    sample_rate
        Of the clips, in Hz.
    max_piece
        Longest clip in seconds.
    """

    def __init__(self, limits: AudioLimits, sample_rate: int, max_piece: float) -> None:
        self._limits = limits
        self._sample_rate = sample_rate
        self._max_piece = max_piece
        with Detector() as canary:
            canary.process(np.zeros(detector.SAMPLE_RATE, np.float32))

    def __call__(self, request: Survey | Cut) -> Iterator[object]:
        """Answer one request; raises `RequestError` for what cannot be read."""
        if isinstance(request, Survey):
            return self._survey(request.source, request.at_most)
        return self._cut(request.source, request.pieces)

    def _survey(self, source: AudioSource, at_most: float | None) -> Iterator[object]:
        probabilities: list[NDArray[np.float32]] = []
        kept: list[NDArray[np.float32]] = []
        length = 0
        with Detector() as vad:
            for block in read_blocks(source, detector.SAMPLE_RATE, self._limits):
                yield CHECKPOINT
                length += len(block)
                if at_most is not None:
                    if length > at_most * detector.SAMPLE_RATE:
                        yield None
                        return
                    kept.append(block)
                probabilities.append(vad.process(block))
            probabilities.append(vad.finish())

        plan = self._plan(np.concatenate(probabilities), length / detector.SAMPLE_RATE)
        if at_most is not None:
            plan = replace(plan, clips=self._clips(source, plan.pieces, kept))
        yield plan

    def _plan(self, probabilities: NDArray[np.float32], duration: float) -> Plan:
        segments = segment(probabilities, duration, SPEECH)
        pieces = plan_pieces(segments, duration, max_piece=self._max_piece, min_pause=MIN_PAUSE)
        return Plan(duration, sum(run.duration for run in segments), tuple(pieces))

    def _clips(
        self, source: AudioSource, pieces: tuple[Piece, ...], kept: list[NDArray[np.float32]]
    ) -> tuple[Clip, ...]:
        if self._sample_rate == detector.SAMPLE_RATE:
            blocks: Iterator[NDArray[np.float32]] = iter(kept)
        else:
            blocks = read_blocks(source, self._sample_rate, self._limits)
        return tuple(clip for clips in slices(blocks, pieces, self._sample_rate) for clip in clips)

    def _cut(self, source: AudioSource, pieces: tuple[Piece, ...]) -> Iterator[object]:
        blocks = read_blocks(source, self._sample_rate, self._limits)
        for clips in slices(blocks, pieces, self._sample_rate):
            yield CHECKPOINT
            yield from clips

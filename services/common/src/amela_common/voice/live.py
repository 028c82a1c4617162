"""Segments of audio that still comes in: what `segment` finds afterwards, told as soon as it is certain."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amela_common.voice.detector import HOP
from amela_common.voice.segmentation import TIME_TOLERANCE, SegmentationOptions


class Edge(NamedTuple):
    """Speech starts or ends.

    Attributes
    ----------
    time
        Seconds from the start of the stream; never after what has been looked at.
    is_start
        Whether speech starts here, or else ends.
    """

    time: float
    is_start: bool


class LiveSegmenter:
    """Follows one stream and reports where its segments start and end.

    The edges are exactly those of `segment` on the whole stream with the same options. Options only
    delay them: a start waits until the run has lasted `min_speech`, an end until the pause has lasted
    the longer of `merge_gap` and twice the `padding`. With default options an edge is known with the
    first frame after it.
    """

    def __init__(self, options: SegmentationOptions) -> None:
        self._options = options
        self._threshold = np.float32(options.threshold)
        self._frames = 0
        self._duration = float("inf")
        # The segment being followed, as frames; it is announced once it is sure to be kept.
        self._start: int | None = None
        self._end = 0
        self._announced = False
        # The end of the segment before, while the pause after it may yet take part of its padding.
        self._closing: float | None = None

    def push(self, probabilities: NDArray[np.float32]) -> list[Edge]:
        """Take the next frames, shape (frames,), and return the edges that are certain now."""
        edges: list[Edge] = []
        for is_speech in (probabilities >= self._threshold).tolist():
            self._frames += 1
            if is_speech:
                self._extend(edges)
            else:
                self._pause(edges)
        return edges

    def finish(self, probabilities: NDArray[np.float32], duration: float) -> list[Edge]:
        """Take the last frames of a stream of `duration` seconds and return the edges left."""
        self._duration = duration
        edges = self.push(probabilities)
        self._close()
        if self._closing is not None:
            edges.append(Edge(self._closing + min(self._options.padding, duration - self._closing), False))
        return edges

    def _time(self, frame: int) -> float:
        return min(frame * HOP, self._duration)

    def _extend(self, edges: list[Edge]) -> None:
        if self._start is None:
            self._start = self._frames - 1
        self._end = self._frames
        start = self._start * HOP
        if self._announced or self._time(self._end) - start < self._options.min_speech - TIME_TOLERANCE:
            return
        self._announced = True
        if self._closing is None:
            edges.append(Edge(start - min(self._options.padding, start), True))
            return
        reach = min(self._options.padding, (start - self._closing) / 2)
        edges += [Edge(self._closing + reach, False), Edge(start - reach, True)]
        self._closing = None

    def _pause(self, edges: list[Edge]) -> None:
        now = self._time(self._frames)
        if now - self._end * HOP >= self._options.merge_gap - TIME_TOLERANCE:
            self._close()
        if (
            self._start is None
            and self._closing is not None
            and now - self._closing >= 2 * self._options.padding
        ):
            edges.append(Edge(self._closing + self._options.padding, False))
            self._closing = None

    def _close(self) -> None:
        if self._announced:
            self._closing = self._time(self._end)
        self._start = None
        self._announced = False

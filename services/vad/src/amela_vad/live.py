"""Voice activity in one live stream."""

from collections.abc import Iterator

import numpy as np
from amela_common.errors import RequestError
from amela_common.voice.detector import HOP, SAMPLE_RATE, Detector
from amela_common.voice.live import Edge, LiveSegmenter
from amela_common.voice.segmentation import SegmentationOptions

_SAMPLE_BYTES = 2
# Half a second takes a core 2 ms: so long does a stream keep others from it, or its own end waiting.
_SLICE_BYTES = SAMPLE_RATE // 2 * _SAMPLE_BYTES


class LiveDetection:
    """Follows one stream, in memory that does not grow with it.

    Its calls compute, so they belong on a thread; one at a time.
    """

    def __init__(self, options: SegmentationOptions) -> None:
        self._detector = Detector()
        self._segmenter = LiveSegmenter(options)
        self._odd = b""
        self._samples = 0
        self._frames = 0

    @property
    def position(self) -> float:
        """How much of the stream has been looked at, in seconds."""
        return min(self._frames * HOP, self._samples / SAMPLE_RATE)

    def push(self, content: bytes) -> list[Edge]:
        """Take the next bytes of 16-bit little-endian samples, which may end inside a sample."""
        content = self._odd + content
        whole = len(content) // _SAMPLE_BYTES
        self._odd = content[whole * _SAMPLE_BYTES :]
        self._samples += whole
        probabilities = self._detector.process_int16(np.frombuffer(content, "<i2", whole))
        self._frames += len(probabilities)
        return self._segmenter.push(probabilities)

    def finish(self) -> list[Edge]:
        """Take the end of the stream."""
        last = self._detector.finish()
        self._frames += len(last)
        return self._segmenter.finish(last, self._samples / SAMPLE_RATE)

    def check_end(self) -> None:
        """Raise INVALID_REQUEST if the stream ended inside a sample."""
        if self._odd:
            raise RequestError(
                "INVALID_REQUEST",
                f"the stream ended inside its sample {self._samples}: send 16-bit samples whole",
                field="samples",
            )


def slices(content: bytes) -> Iterator[bytes]:
    """Cut a message into parts that take a thread a short while each."""
    for start in range(0, len(content), _SLICE_BYTES):
        yield content[start : start + _SLICE_BYTES]

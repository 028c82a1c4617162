"""What a worker does with one recording."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from amela.vad.v1 import vad_pb2
from amela_common.audio import AudioLimits, AudioSource, read_blocks
from amela_common.durations import to_duration
from amela_common.errors import RequestError
from amela_common.pool import CHECKPOINT
from amela_common.voice.detector import HOP, SAMPLE_RATE, Detector
from amela_common.voice.segmentation import (
    SegmentationOptions,
    is_long,
    is_no_speech,
    segment,
    split_points,
    statistics,
)
from numpy.typing import NDArray

from amela_vad.engine import canary, model


@dataclass(frozen=True)
class Detection:
    """A recording, and what to say about it."""

    source: AudioSource
    options: SegmentationOptions
    frame_probabilities: bool = False


class DetectionHandler:
    """Finds the speech in recordings, one after the other, each with a detector of its own.

    Parameters
    ----------
    limits
        What may be read.
    max_message_bytes
        Largest answer.

    Raises
    ------
    ConfigError
        If the detector does not work here.
    """

    def __init__(self, limits: AudioLimits, max_message_bytes: int) -> None:
        canary()
        self._limits = limits
        self._max_message_bytes = max_message_bytes
        self._model = model()

    def __call__(self, request: Detection) -> Iterator[object]:
        """Yield the ``DetectResponse`` of a recording, serialised, after a checkpoint for each block."""
        samples = frames = 0
        parts: list[NDArray[np.float32]] = []
        with Detector() as detector:
            for block in read_blocks(request.source, SAMPLE_RATE, self._limits):
                parts.append(detector.process(block))
                samples += len(block)
                frames += len(parts[-1])
                if request.frame_probabilities and 4 * frames > self._max_message_bytes:
                    raise self._too_large(request)
                yield CHECKPOINT
            parts.append(detector.finish())
        answer = self._answer(request, parts, samples / SAMPLE_RATE).SerializeToString()
        if len(answer) > self._max_message_bytes:
            raise self._too_large(request)
        yield answer

    def _answer(
        self, request: Detection, parts: list[NDArray[np.float32]], duration: float
    ) -> vad_pb2.DetectResponse:
        segments = segment(np.concatenate(parts), duration, request.options)
        found = statistics(segments, duration)
        seconds = asdict(found)
        ratio = seconds.pop("speech_ratio")
        answer = vad_pb2.DetectResponse(
            audio_duration=to_duration(duration),
            segments=[
                vad_pb2.Segment(start=to_duration(run.start), end=to_duration(run.end)) for run in segments
            ],
            statistics=vad_pb2.Statistics(
                speech_ratio=ratio, **{name: to_duration(value) for name, value in seconds.items()}
            ),
            no_speech=is_no_speech(found),
            long_audio=is_long(duration),
            split_points=[to_duration(point) for point in split_points(segments, duration)],
            model=self._model,
        )
        if request.frame_probabilities:
            answer.frame_probabilities.hop.CopyFrom(to_duration(HOP))
            # Part by part: as Python's numbers, those of a whole day would take 100 MB.
            for part in parts:
                answer.frame_probabilities.values.extend(part.tolist())
        return answer

    def _too_large(self, request: Detection) -> RequestError:
        limit = f"the {self._max_message_bytes} bytes that a message of this server may have"
        if request.frame_probabilities:
            return request.source.error(
                "INVALID_REQUEST",
                f"the probability of each frame takes more than {limit}: leave them out, or ask for"
                f" stretches of less than {self._max_message_bytes / 4 * HOP:.0f} s",
                field="frame_probabilities",
            )
        return request.source.error(
            "AUDIO_TOO_LONG", f"the segments take more than {limit}: ask for shorter stretches"
        )

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from amela_common.errors import RequestError
from amela_common.voice.detector import Detector
from amela_common.voice.live import Edge
from amela_common.voice.segmentation import SegmentationOptions, segment
from amela_vad.live import LiveDetection, slices
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = Path(__file__).parents[3] / "examples"
SPEECH: np.ndarray = soundfile.read(EXAMPLES / "sense-and-sensibility-0890.flac", dtype="int16")[0]
BYTES = SPEECH.astype("<i2").tobytes()


def expected(options: SegmentationOptions) -> list[Edge]:
    with Detector() as detector:
        probabilities = np.concatenate([detector.process_int16(SPEECH), detector.finish()])
    found = segment(probabilities, len(SPEECH) / 16000, options)
    return [edge for run in found for edge in (Edge(run.start, True), Edge(run.end, False))]


@settings(max_examples=10)
@given(
    st.integers(1, 5000),
    st.builds(SegmentationOptions, merge_gap=st.floats(0, 0.3), padding=st.floats(0, 0.3)),
)
def test_edges_are_those_of_the_whole_recording_whatever_the_chunks(
    size: int, options: SegmentationOptions
) -> None:
    live = LiveDetection(options)
    edges = [edge for at in range(0, len(BYTES), size) for edge in live.push(BYTES[at : at + size])]
    edges += live.finish()
    live.check_end()
    assert edges == expected(options)
    assert live.position == len(SPEECH) / 16000


def test_single_bytes_are_put_together() -> None:
    live = LiveDetection(SegmentationOptions())
    for value in BYTES[:1024]:
        live.push(bytes([value]))
    assert live.position == 512 / 16000


def test_position_counts_whole_frames_until_the_end() -> None:
    live = LiveDetection(SegmentationOptions())
    live.push(bytes(2 * 300))
    assert live.position == 256 / 16000
    live.finish()
    assert live.position == 300 / 16000


def test_nothing_sent_is_nothing_found() -> None:
    live = LiveDetection(SegmentationOptions())
    assert live.push(b"") == []
    assert live.finish() == []
    assert live.position == 0


def test_an_end_inside_a_sample_is_named() -> None:
    live = LiveDetection(SegmentationOptions())
    live.push(bytes(2001))
    live.finish()
    with pytest.raises(RequestError, match="inside its sample 1000") as caught:
        live.check_end()
    assert caught.value.metadata == {"field": "samples"}


def test_memory_does_not_grow_with_the_stream() -> None:
    live = LiveDetection(SegmentationOptions())
    second = bytes(32000)
    live.push(second)
    tracemalloc.start()
    for _ in range(60):
        live.push(second)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000


@given(st.integers(0, 100_000))
def test_slices_are_the_message_in_order(size: int) -> None:
    content = np.arange(size, dtype=np.uint8).tobytes()
    parts = list(slices(content))
    assert b"".join(parts) == content
    assert all(0 < len(part) <= 16000 for part in parts)

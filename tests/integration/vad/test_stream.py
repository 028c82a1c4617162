"""DetectStream, through a real server on loopback."""

import itertools
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from amela.vad.v1 import vad_pb2
from amela_common.durations import to_duration
from numpy.typing import NDArray

from tests.integration.vad.conftest import RATE, Recorder, Vad, error_info, seconds, times

Request = vad_pb2.DetectStreamRequest


def chunks(samples: NDArray[np.int16], size: int) -> Iterator[Request]:
    content = samples.astype("<i2").tobytes()
    for at in range(0, len(content), size):
        yield Request(samples=content[at : at + size])


def edges(responses: Any) -> list[tuple[str, float]]:
    return [
        (event := response.WhichOneof("event"), seconds(getattr(response, event))) for response in responses
    ]


def as_edges(segments: list[tuple[float, float]]) -> list[tuple[str, float]]:
    return [edge for start, end in segments for edge in (("speech_start", start), ("speech_end", end))]


@pytest.mark.parametrize("size", [333, 512, 6400, 10_000_000])
def test_edges_are_the_segments_of_detect_whatever_the_chunks(
    vad: Vad, record: Recorder, speech: NDArray[np.int16], size: int
) -> None:
    assert edges(vad.stream(chunks(speech, size))) == as_edges(times(vad.call(record("speech.wav", speech))))


def test_options_give_the_segments_of_detect_as_well(
    vad: Vad, record: Recorder, speech: NDArray[np.int16]
) -> None:
    options = vad_pb2.SegmentationOptions(
        threshold=0.6, merge_gap=to_duration(0.2), min_speech=to_duration(0.3), padding=to_duration(0.1)
    )
    found = edges(vad.stream(itertools.chain([Request(segmentation=options)], chunks(speech, 3200))))
    assert found == as_edges(times(vad.call(record("speech.wav", speech), segmentation=options)))
    assert found != edges(vad.stream(chunks(speech, 3200)))


def test_a_start_is_answered_while_the_speaker_still_speaks(vad: Vad, speech: NDArray[np.int16]) -> None:
    microphone: queue.Queue[Request | None] = queue.Queue()
    responses = vad.stream(iter(microphone.get, None))
    for request in chunks(speech[: 2 * RATE], 640):
        microphone.put(request)
    response = next(responses)
    assert response.HasField("speech_start")
    assert seconds(response.speech_start) <= seconds(response.position) <= 2
    microphone.put(None)
    assert edges(responses) == [("speech_end", 2.0)]


def test_positions_never_go_back_and_edges_never_lie_ahead(vad: Vad, speech: NDArray[np.int16]) -> None:
    responses = list(vad.stream(chunks(speech, 1000)))
    positions = [seconds(response.position) for response in responses]
    assert positions == sorted(positions)
    assert all(time <= position for (_, time), position in zip(edges(responses), positions, strict=True))


@pytest.mark.parametrize(
    "requests", [[], [Request()], [Request(segmentation=vad_pb2.SegmentationOptions(threshold=0.5))]]
)
def test_an_empty_stream_has_no_edges(vad: Vad, requests: list[Request]) -> None:
    assert edges(vad.stream(iter(requests))) == []


def test_a_stream_that_ends_inside_a_sample_has_its_edges_and_then_an_error(
    vad: Vad, speech: NDArray[np.int16]
) -> None:
    responses = vad.stream(itertools.chain(chunks(speech[:RATE], 9999), [Request(samples=b"\0")]))
    found = []
    with pytest.raises(grpc.RpcError) as caught:
        for response in responses:
            found.append(response)
    assert [name for name, _ in edges(found)] == ["speech_start", "speech_end"]
    info = error_info(caught.value)
    assert (info.reason, info.metadata["field"]) == ("INVALID_REQUEST", "samples")


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        (
            [Request(segmentation=vad_pb2.SegmentationOptions(threshold=float("nan")))],
            "segmentation.threshold",
        ),
        (
            [Request(segmentation=vad_pb2.SegmentationOptions(padding=to_duration(-1)))],
            "segmentation.padding",
        ),
        ([Request(), Request(segmentation=vad_pb2.SegmentationOptions())], "segmentation"),
    ],
)
def test_impossible_options_are_refused_by_name(vad: Vad, requests: list[Request], field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(vad.stream(iter(requests)))
    info = error_info(caught.value)
    assert (info.reason, info.metadata["field"]) == ("INVALID_REQUEST", field)


def test_many_streams_at_once_do_not_disturb_each_other(vad: Vad, speech: NDArray[np.int16]) -> None:
    expected = edges(vad.stream(chunks(speech[: 8 * RATE], 5000)))
    assert expected
    with ThreadPoolExecutor(16) as threads:
        sizes = range(3001, 3001 + 16 * 100, 100)
        found = threads.map(lambda size: edges(vad.stream(chunks(speech[: 8 * RATE], size))), sizes)
        assert list(found) == [expected] * 16


def test_a_stream_too_many_is_refused_and_a_place_left_is_given_on(
    start_vad: Any, speech: NDArray[np.int16]
) -> None:
    vad = start_vad("--workers", "1", "--streams", "1")
    microphone: queue.Queue[Request | None] = queue.Queue()
    first = vad.stream(iter(microphone.get, None))
    for request in chunks(speech[:RATE], 32000):
        microphone.put(request)
    assert next(first).HasField("speech_start")
    with pytest.raises(grpc.RpcError) as caught:
        list(vad.stream(iter([])))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(caught.value).reason == "QUEUE_FULL"
    microphone.put(None)
    assert edges(first) == [("speech_end", 1.0)]
    assert list(vad.stream(iter([]))) == []


def test_a_cancelled_stream_leaves_its_place(start_vad: Any, speech: NDArray[np.int16]) -> None:
    vad = start_vad("--workers", "1", "--streams", "1")
    for _ in range(5):
        responses = vad.stream(itertools.cycle(chunks(speech[:RATE], 32000)))
        next(responses)
        responses.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(responses)
        assert caught.value.code() == grpc.StatusCode.CANCELLED

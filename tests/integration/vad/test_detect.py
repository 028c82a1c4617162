"""Detect and GetInfo, through a real server on loopback."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
import soxr
import ten_vad
from amela.common.v1 import audio_pb2
from amela.vad.v1 import vad_pb2
from amela_common.durations import to_duration
from amela_common.voice.segmentation import SegmentationOptions, segment, split_points, statistics
from numpy.typing import NDArray

from tests.conftest import EXAMPLES
from tests.integration.vad.conftest import RATE, Recorder, Vad, error_info, seconds, times


def bare_probabilities(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Run the library's own loop over a recording filled up to whole frames."""
    detector = ten_vad.TenVad(256)
    frames = np.pad(samples, (0, -len(samples) % 256)).reshape(-1, 256)
    return np.array([detector.process(frame)[0] for frame in frames], np.float32)


def options(**values: float) -> vad_pb2.SegmentationOptions:
    threshold = values.pop("threshold", None)
    return vad_pb2.SegmentationOptions(
        threshold=threshold, **{name: to_duration(value) for name, value in values.items()}
    )


def test_info_says_what_runs_and_what_it_takes(vad: Vad) -> None:
    info = vad.stub.GetInfo(vad_pb2.GetInfoRequest(), metadata=vad.server.metadata)
    assert info.sample_rate_hz == 16000
    assert seconds(info.hop) == 0.016
    assert info.server.capacity.concurrency == 2
    assert info.server.limits.max_message_bytes > 0
    assert info.server.model.fingerprint == vad.server.registration["model"]["fingerprint"]
    assert info.server.version


@pytest.mark.parametrize("number", ["0870", "0880", "0890", "0920", "0930"])
def test_answers_are_what_the_bare_loop_and_segmentation_give(vad: Vad, examples: Path, number: str) -> None:
    path = examples / f"sense-and-sensibility-{number}.flac"
    samples, _ = soundfile.read(path, dtype="int16")
    duration = len(samples) / RATE
    probabilities = bare_probabilities(samples)
    segments = segment(probabilities, duration, SegmentationOptions())
    expected = statistics(segments, duration)

    answer = vad.call(path, frame_probabilities=True)
    assert np.array_equal(np.array(answer.frame_probabilities.values, np.float32), probabilities)
    assert seconds(answer.frame_probabilities.hop) == 0.016
    assert seconds(answer.audio_duration) == pytest.approx(duration, abs=1e-9)
    assert times(answer) == [pytest.approx(tuple(run), abs=1e-9) for run in segments]
    assert seconds(answer.statistics.max_speech) == pytest.approx(expected.max_speech, abs=1e-9)
    assert seconds(answer.statistics.min_nonspeech) == pytest.approx(expected.min_nonspeech, abs=1e-9)
    assert answer.statistics.speech_ratio == pytest.approx(expected.speech_ratio)
    assert not answer.no_speech
    assert not answer.long_audio
    assert not answer.split_points
    assert answer.model.engine == "ten-vad"


def test_probabilities_come_only_when_asked_for(vad: Vad, examples: Path) -> None:
    answer = vad.call(examples / "sense-and-sensibility-0880.flac")
    assert not answer.HasField("frame_probabilities")


def test_an_answer_does_not_depend_on_what_the_worker_saw_before(
    vad: Vad, examples: Path, record: Recorder
) -> None:
    noise = record("noise.wav", np.random.default_rng(0).integers(-9999, 9999, 5 * RATE).astype(np.int16))
    paths = [noise, *sorted(examples.glob("*.flac"))]
    first = {path: vad.call(path, frame_probabilities=True) for path in paths}
    order = np.random.default_rng(1).permutation(len(paths) * 4)
    calls = [
        (path, vad.start(path, frame_probabilities=True))
        for path in (paths[index % len(paths)] for index in order)
    ]
    for path, call in calls:
        assert call.result() == first[path]


def test_options_reach_the_segmentation(vad: Vad, examples: Path) -> None:
    path = examples / "sense-and-sensibility-0890.flac"
    samples, _ = soundfile.read(path, dtype="int16")
    chosen = SegmentationOptions(threshold=0.75, merge_gap=0.2, min_speech=0.25, padding=0.1)
    expected = segment(bare_probabilities(samples), len(samples) / RATE, chosen)
    answer = vad.call(path, segmentation=options(threshold=0.75, merge_gap=0.2, min_speech=0.25, padding=0.1))
    assert times(answer) == [pytest.approx(tuple(run), abs=1e-9) for run in expected]
    assert times(answer) != times(vad.call(path))


def test_silence_is_no_speech(vad: Vad, record: Recorder) -> None:
    answer = vad.call(record("silence.wav", np.zeros(5 * RATE, np.int16)))
    assert answer.no_speech
    assert not answer.segments
    assert seconds(answer.statistics.max_nonspeech) == 5
    assert answer.statistics.speech_ratio == 0


def test_a_minute_is_long_and_has_split_points_in_its_pauses(
    vad: Vad, record: Recorder, speech: NDArray[np.int16]
) -> None:
    pause = np.zeros(2 * RATE, np.int16)
    long = np.concatenate([speech, speech[: 6 * RATE], pause, speech, speech[: 4 * RATE], pause, speech])
    answer = vad.call(record("long.wav", long))
    assert answer.long_audio
    points = [seconds(point) for point in answer.split_points]
    segments = segment(bare_probabilities(long), len(long) / RATE, SegmentationOptions())
    assert points == pytest.approx(split_points(segments, len(long) / RATE), abs=1e-9)
    assert len(points) >= 2
    assert not any(start < point < end for point in points for start, end in times(answer))


def test_a_stretch_counts_its_times_from_its_own_start(
    vad: Vad, record: Recorder, speech: NDArray[np.int16]
) -> None:
    whole = record("speech.wav", speech)
    stretch = record("stretch.wav", speech[5 * RATE : 12 * RATE])
    request = audio_pb2.Audio(path=str(whole), start=to_duration(5), duration=to_duration(7))
    answer = vad.call(None, audio=request)
    assert seconds(answer.audio_duration) == 7
    assert answer == vad.call(stretch)


def test_content_sent_with_the_request_is_as_good_as_a_path(vad: Vad, examples: Path) -> None:
    path = examples / "sense-and-sensibility-0930.flac"
    assert vad.call(None, audio=audio_pb2.Audio(content=path.read_bytes())) == vad.call(path)


def test_a_channel_can_be_chosen(vad: Vad, record: Recorder, speech: NDArray[np.int16]) -> None:
    mono = speech[: 10 * RATE]
    stereo = record("stereo.wav", np.stack([np.zeros_like(mono), mono], axis=1))
    silent = vad.call(None, audio=audio_pb2.Audio(path=str(stereo), channel=0))
    spoken = vad.call(None, audio=audio_pb2.Audio(path=str(stereo), channel=1))
    assert silent.no_speech
    assert spoken == vad.call(record("mono.wav", mono))


def test_another_rate_and_layout_give_nearly_the_same_segments(
    vad: Vad, record: Recorder, speech: NDArray[np.int16]
) -> None:
    stereo = np.stack([speech, speech], axis=1).astype(np.float32) / 32768
    resampled = record("cd.flac", soxr.resample(stereo, RATE, 44_100), 44_100)
    near, exact = (
        vad.call(path, segmentation=options(merge_gap=0.1, min_speech=0.1), frame_probabilities=True)
        for path in (resampled, record("speech.wav", speech))
    )
    a, b = (np.array(answer.frame_probabilities.values) >= 0.5 for answer in (near, exact))
    frames = min(len(a), len(b))
    assert abs(len(a) - len(b)) <= 1
    assert np.mean(a[:frames] == b[:frames]) > 0.98
    assert near.statistics.speech_ratio == pytest.approx(exact.statistics.speech_ratio, abs=0.02)


@pytest.mark.parametrize(
    ("segmentation", "field"),
    [
        ({"threshold": 1.5}, "segmentation.threshold"),
        ({"threshold": float("nan")}, "segmentation.threshold"),
        ({"merge_gap": -0.1}, "segmentation.merge_gap"),
        ({"min_speech": -1}, "segmentation.min_speech"),
        ({"padding": -1e-9}, "segmentation.padding"),
    ],
)
def test_impossible_options_are_refused_by_name(
    vad: Vad, examples: Path, segmentation: dict[str, float], field: str
) -> None:
    path = examples / "sense-and-sensibility-0880.flac"
    with pytest.raises(grpc.RpcError) as caught:
        vad.call(path, segmentation=options(**segmentation))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    info = error_info(caught.value)
    assert (info.reason, info.metadata["field"]) == ("INVALID_REQUEST", field)


def test_a_request_without_audio_is_refused_by_name(vad: Vad) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        vad.call(None)
    info = error_info(caught.value)
    assert (info.reason, info.metadata["field"]) == ("INVALID_REQUEST", "audio")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.wav", b"", "AUDIO_EMPTY"),
        ("text.wav", b"This is not audio at all. " * 100, "AUDIO_UNSUPPORTED"),
        ("cut.flac", (EXAMPLES / "sense-and-sensibility-0870.flac").read_bytes()[:60_000], "AUDIO_TRUNCATED"),
    ],
)
def test_recordings_that_cannot_be_read_fail_with_their_reason(
    vad: Vad, audio_folder: Path, name: str, content: bytes, reason: str
) -> None:
    path = audio_folder / name
    path.write_bytes(content)
    with pytest.raises(grpc.RpcError, match=name) as caught:
        vad.call(path)
    info = error_info(caught.value)
    assert (info.reason, info.metadata["path"]) == (reason, str(path))


def test_paths_outside_the_roots_are_forbidden(vad: Vad, tmp_path: Path, audio_folder: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", np.zeros(RATE), RATE)
    link = audio_folder / "innocent.wav"
    link.symlink_to(tmp_path / "secret.wav")
    for path in (tmp_path / "secret.wav", tmp_path / "missing.wav", link):
        with pytest.raises(grpc.RpcError) as caught:
            vad.call(path)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert error_info(caught.value).reason == "PATH_FORBIDDEN"


def test_audio_beyond_the_limit_is_refused_and_the_limit_is_in_the_info(
    start_vad: Any, examples: Path
) -> None:
    vad = start_vad("--workers", "1", "--max-audio-seconds", "5")
    info = vad.stub.GetInfo(vad_pb2.GetInfoRequest(), metadata=vad.server.metadata)
    assert seconds(info.server.limits.max_audio) == 5
    with pytest.raises(grpc.RpcError) as caught:
        vad.call(examples / "sense-and-sensibility-0870.flac")
    assert error_info(caught.value).reason == "AUDIO_TOO_LONG"
    assert vad.call(examples / "sense-and-sensibility-0930.flac").segments

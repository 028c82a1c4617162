import pickle

import pytest
from amela.common.v1 import audio_pb2
from amela_common.audio import AudioLimits, AudioSource
from amela_common.errors import RequestError
from google.protobuf.duration_pb2 import Duration


def test_a_request_becomes_a_source() -> None:
    audio = audio_pb2.Audio(
        path="/data/a.wav",
        start=Duration(seconds=1, nanos=500_000_000),
        duration=Duration(seconds=2),
        channel=0,
    )
    assert AudioSource.from_proto(audio) == AudioSource(
        path="/data/a.wav", start=1.5, duration=2.0, channel=0
    )


def test_fields_that_are_not_set_mean_all_of_the_recording_mixed_down() -> None:
    source = AudioSource.from_proto(audio_pb2.Audio(content=b"RIFF"))
    assert source == AudioSource(content=b"RIFF", start=0.0, duration=None, channel=None)


@pytest.mark.parametrize(
    ("audio", "field"),
    [
        (audio_pb2.Audio(), "audio"),
        (audio_pb2.Audio(path=""), "audio.path"),
        (audio_pb2.Audio(path="a.wav"), "audio.path"),
        (audio_pb2.Audio(path="../a.wav"), "audio.path"),
        (audio_pb2.Audio(path="/a\0.wav"), "audio.path"),
        (audio_pb2.Audio(path="/a" * 2048), "audio.path"),
        (audio_pb2.Audio(path="/a", start=Duration(seconds=-1)), "audio.start"),
        (audio_pb2.Audio(path="/a", start=Duration(nanos=-1)), "audio.start"),
        (audio_pb2.Audio(path="/a", start=Duration(seconds=2**62)), "audio.start"),
        (audio_pb2.Audio(path="/a", duration=Duration()), "audio.duration"),
        (audio_pb2.Audio(path="/a", duration=Duration(seconds=-3)), "audio.duration"),
        (audio_pb2.Audio(path="/a", duration=Duration(seconds=2**62)), "audio.duration"),
    ],
)
def test_a_wrong_request_names_its_field(audio: audio_pb2.Audio, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        AudioSource.from_proto(audio)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("INVALID_REQUEST", field)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "/a", "content": b"b"},
        {"path": "/a", "start": float("nan")},
        {"path": "/a", "start": float("inf")},
        {"path": "/a", "duration": float("nan")},
        {"path": "/a", "duration": float("inf")},
        {"path": "/a", "channel": -1},
        {"path": "/\ud800"},
    ],
)
def test_no_source_can_be_made_of_nonsense(arguments: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        AudioSource(**arguments)  # type: ignore[arg-type]
    assert caught.value.reason == "INVALID_REQUEST"
    caught.value.message.encode()


@pytest.mark.parametrize(("letter", "most"), [("a", 4094), ("é", 2047)])
def test_a_path_has_as_many_bytes_as_the_system_opens(letter: str, most: int) -> None:
    AudioSource(path="/" + most * letter)
    with pytest.raises(RequestError, match="a path has 4095 at most") as caught:
        AudioSource(path="/" + (most + 1) * letter)
    assert len(caught.value.message) < 200


def test_a_name_that_would_not_print_is_quoted_in_messages() -> None:
    assert AudioSource(path="/a\nb.wav").name == r"'/a\nb.wav'"
    assert AudioSource(path="/\udcff.wav").name == r"'/\udcff.wav'"
    assert AudioSource(path="/é ü.wav").name == "/é ü.wav"


def test_an_error_names_the_recording_for_people_and_for_programs() -> None:
    error = AudioSource(path="/a.wav").error("AUDIO_EMPTY", "has 0 bytes", limit="1")
    assert error.message == "/a.wav: has 0 bytes"
    assert error.metadata == {"path": "/a.wav", "limit": "1"}
    assert AudioSource(content=b"x").error("AUDIO_EMPTY", "").metadata == {}


def test_sources_and_limits_travel_to_workers() -> None:
    source = AudioSource(content=b"abc", start=1.0, channel=1)
    limits = AudioLimits(roots=("/data",), max_seconds=60.0, max_bytes=10)
    assert pickle.loads(pickle.dumps((source, limits))) == (source, limits)


def test_a_source_does_not_print_its_bytes() -> None:
    assert "zzzz" not in repr(AudioSource(content=b"zzzz"))

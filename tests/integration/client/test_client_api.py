"""The Python API, asynchronous and blocking, on real servers with real speech."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile
from amela_client import (
    ASR,
    VAD,
    AmelaClient,
    CallError,
    DiscoveryError,
    NoServersError,
    SpeechEvent,
    SyncAmelaClient,
    Task,
    detect_request,
)


@pytest.fixture(scope="module")
def servers(start_module_server: Any, examples: Path) -> tuple[Any, Any]:
    """Start a VAD and an ASR server that may read the examples."""
    with ThreadPoolExecutor() as threads:
        vad, asr = threads.map(
            lambda name: start_module_server([name, "--workers", "1", "--audio-root", str(examples)]),
            ["amela-vad", "amela-asr"],
        )
    return vad, asr


@pytest.fixture(scope="module")
def registry(servers: Any) -> Path:
    return servers[0].registry


@pytest.fixture(scope="module")
def sentence(examples: Path) -> Path:
    return examples / "sense-and-sensibility-0870.flac"


@pytest.fixture(scope="module")
def content(sentence: Path) -> bytes:
    return sentence.read_bytes()


@pytest.fixture(scope="module")
def paths(examples: Path) -> list[Path]:
    return sorted(examples.glob("*.flac"))


@pytest.fixture
def open_registry(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)
    return tmp_path


def live_samples(path: Path) -> list[bytes]:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16_000
    return [samples[at : at + 1600].tobytes() for at in range(0, len(samples), 1600)]


async def as_they_come(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def test_a_recording_is_transcribed_with_words(registry: Path, sentence: Path) -> None:
    async with AmelaClient(registry) as client:
        transcript = await client.transcribe(sentence, words=True)
    assert "".join(word.text for word in transcript.words).replace(" ", "") == transcript.text.replace(
        " ", ""
    )
    assert transcript.segments[0].start >= 0
    assert transcript.words[-1].end <= transcript.audio_seconds
    assert 0 < transcript.speech_seconds <= transcript.audio_seconds
    assert (transcript.no_speech, transcript.failures) == (False, ())
    assert transcript.model.engine == "pocketsphinx"


async def test_speech_is_found_by_path_and_by_content_alike(
    registry: Path, sentence: Path, content: bytes
) -> None:
    async with AmelaClient(registry) as client:
        by_path, by_content = await asyncio.gather(client.detect(sentence), client.detect(content))
    assert by_path == by_content
    assert by_path.segments
    assert by_path.audio_seconds == pytest.approx(soundfile.info(sentence).duration)
    assert 0 < by_path.statistics.speech_ratio <= 1
    assert by_path.frame_probabilities is None
    assert by_path.model.engine == "ten-vad"


async def test_a_relative_path_is_taken_against_the_working_folder(
    registry: Path, sentence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sentence.parent)
    async with AmelaClient(registry) as client:
        assert await client.detect(sentence.name) == await client.detect(sentence)


async def test_options_reach_the_server(registry: Path, sentence: Path) -> None:
    async with AmelaClient(registry) as client:
        everything = await client.detect(sentence, padding=100.0, frame_probabilities=True)
        nothing = await client.detect(sentence, threshold=1.0, min_speech=60.0)
        stretch = await client.detect(sentence, start=0.5, duration=1.0, channel=0)
    assert everything.segments[0].start == 0.0
    assert everything.segments[-1].end == pytest.approx(everything.audio_seconds)
    assert everything.frame_probabilities is not None
    assert everything.frame_probabilities.hop == 0.016
    assert len(everything.frame_probabilities.values) >= everything.audio_seconds // 0.016
    assert (nothing.segments, nothing.no_speech) == ((), True)
    assert stretch.audio_seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [("missing.flac", "AUDIO_NOT_FOUND"), ("", "AUDIO_NOT_A_FILE"), ("/etc/passwd", "PATH_FORBIDDEN")],
)
async def test_a_bad_path_fails_with_its_reason(
    registry: Path, examples: Path, audio: str, reason: str
) -> None:
    async with AmelaClient(registry) as client:
        with pytest.raises(CallError) as caught:
            await client.detect(examples / audio)
    assert (caught.value.reason, caught.value.transient) == (reason, False)
    assert (audio or str(examples)) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"not audio at all"])
async def test_bytes_that_are_no_audio_fail_for_good(registry: Path, content: bytes) -> None:
    async with AmelaClient(registry) as client:
        with pytest.raises(CallError, match=r"AUDIO_|INVALID_REQUEST") as caught:
            await client.transcribe(content)
    assert not caught.value.transient


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1.0},
        {"start": float("nan")},
        {"duration": float("inf")},
        {"channel": -1},
        {"merge_gap": -0.5},
    ],
)
async def test_what_cannot_be_sent_is_a_value_error(registry: Path, sentence: Path, options: Any) -> None:
    async with AmelaClient(registry) as client:
        with pytest.raises(ValueError, match=r"."):
            await client.detect(sentence, **options)


async def test_a_path_that_is_not_unicode_is_a_value_error(registry: Path) -> None:
    async with AmelaClient(registry) as client:
        with pytest.raises(ValueError, match="rename the file"):
            await client.detect("/data/\udcff.wav")


async def test_many_recordings_come_back_with_their_keys(registry: Path, paths: list[Path]) -> None:
    tasks = (Task(key, detect_request(paths[key % len(paths)])) for key in range(40))
    async with AmelaClient(registry) as client:
        outcomes = [outcome async for outcome in client.detect_all(tasks)]
        singles = [await client.detect(path) for path in paths]
    assert {outcome.key: outcome.response for outcome in outcomes} == {
        key: singles[key % len(paths)] for key in range(40)
    }


async def test_live_audio_gives_the_edges_of_the_segments(registry: Path, sentence: Path) -> None:
    async with AmelaClient(registry) as client:
        activity = await client.detect(sentence, merge_gap=0.2)
        stream = client.detect_stream(as_they_come(live_samples(sentence)), merge_gap=0.2)
        events = [event async for event in stream]
    assert [event.time for event in events] == pytest.approx(
        [time for segment in activity.segments for time in segment]
    )
    assert {event.kind for event in events[::2]} == {"start"}
    assert {event.kind for event in events[1::2]} == {"end"}


async def test_what_breaks_the_live_audio_breaks_the_stream(registry: Path) -> None:
    async def unplugged() -> AsyncIterator[bytes]:
        yield bytes(32_000)
        raise OSError("the microphone is gone")

    async with AmelaClient(registry) as client:
        with pytest.raises(OSError, match="the microphone is gone"):
            async for _ in client.detect_stream(unplugged()):
                pass


async def test_live_audio_may_be_left_early(registry: Path, sentence: Path) -> None:
    async with asyncio.timeout(20), AmelaClient(registry) as client:
        stream = client.detect_stream(as_they_come(live_samples(sentence) * 100))
        assert (await anext(stream)).kind == "start"
        await stream.aclose()
        assert (await client.detect(sentence)).segments


async def test_the_servers_are_surveyed(servers: Any, registry: Path) -> None:
    async with AmelaClient(registry) as client:
        asr, vad = await client.servers()
    assert [asr.service, vad.service] == [ASR.name, VAD.name]
    for status, server in ((asr, servers[1]), (vad, servers[0])):
        assert status.endpoint == server.target
        assert status.reachable
        assert status.serving
        assert status.problem == ""
        assert status.concurrency >= 1
        assert status.model is not None
        assert status.heartbeat_age is not None
        assert status.heartbeat_age < 60


async def test_an_unregistered_address_is_asked_what_it_serves(start_server: Any, tmp_path: Path) -> None:
    server = start_server(["amela-vad", "--workers", "1", "--insecure"])
    async with AmelaClient(tmp_path / "none", [server.target]) as client:
        [status] = await client.servers()
    assert (status.service, status.serving, status.heartbeat_age) == (VAD.name, True, None)
    assert "--registry" in status.problem


async def test_dead_and_broken_registrations_show_what_is_wrong(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o700)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = {
            "service": ASR.name,
            "host": "127.0.0.1",
            "port": bound.getsockname()[1],
            "heartbeat": "2025-01-01T00:00:00Z",
            "slurm": {"jobId": "4711", "arrayTaskId": 3},
        }
        (registry / "dead.json").write_text(json.dumps(dead))
        (registry / "newer.json").write_text(
            json.dumps({**dead, "service": "amela.new.v1.NewService", "port": 1})
        )
        (registry / "broken.json").write_text("{")
        async with AmelaClient(registry) as client:
            broken, gone, newer = await client.servers()
    assert (gone.reachable, gone.serving, gone.slurm_job) == (False, False, "4711_3")
    assert "probably died" in gone.problem
    assert "amela.new.v1.NewService" in newer.problem
    assert "broken.json" in broken.problem


async def test_without_a_server_the_error_says_what_to_type(tmp_path: Path) -> None:
    async with AmelaClient(tmp_path / "none", wait=0.3) as client:
        with pytest.raises(NoServersError) as caught:
            await client.transcribe("/data/a.wav")
        assert await client.servers() == []
    for part in (str(tmp_path / "none"), "does not exist", "amela-asr", "--server", "--registry"):
        assert part in str(caught.value)


async def test_a_server_of_another_kind_is_no_server(servers: Any) -> None:
    vad, _ = servers
    async with AmelaClient(vad.registry, [vad.target], wait=1) as client:
        with pytest.raises(NoServersError, match="amela-asr"):
            await client.transcribe("/data/a.wav")


async def test_the_wrong_token_is_told_before_any_waiting(servers: Any, tmp_path: Path) -> None:
    vad, _ = servers
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o700)
    (registry / "token").write_text("wrong")
    (registry / "vad.json").write_text(json.dumps(vad.registration))
    async with asyncio.timeout(30), AmelaClient(registry, wait=1000) as client:
        with pytest.raises(CallError, match=r"BAD_TOKEN.*refused the token"):
            await client.detect("/data/a.wav")


async def test_a_registry_that_others_can_write_is_not_used(open_registry: Path) -> None:
    async with AmelaClient(open_registry) as client:
        with pytest.raises(DiscoveryError, match="written by others"):
            await client.detect("/data/a.wav")


def test_the_blocking_client_does_the_same(registry: Path, sentence: Path) -> None:
    with SyncAmelaClient(registry) as client:
        assert client.detect(sentence).segments
        assert client.transcribe(sentence).text
        assert [status.service for status in client.servers()] == [ASR.name, VAD.name]
        assert [model.engine for model in client.models(VAD)] == ["ten-vad"]
        assert client.serving(VAD) == 1
        outcomes = client.detect_all([Task(5, detect_request(sentence))])
        assert [outcome.key for outcome in outcomes] == [5]
        with pytest.raises(CallError, match="AUDIO_NOT_FOUND"):
            client.detect(sentence.with_name("missing.flac"))


def test_the_blocking_client_listens_to_live_audio(registry: Path, sentence: Path) -> None:
    with SyncAmelaClient(registry) as client:
        events = list(client.detect_stream(live_samples(sentence)))
        assert events[0].kind == "start"

        def unplugged() -> Iterator[bytes]:
            yield bytes(3200)
            raise OSError("the microphone is gone")

        with pytest.raises(OSError, match="the microphone is gone"):
            list(client.detect_stream(unplugged()))


def test_threads_may_share_a_blocking_client(registry: Path, paths: list[Path]) -> None:
    with SyncAmelaClient(registry) as client, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(client.detect, paths * 4))
    assert results[: len(paths)] == results[-len(paths) :]


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with AmelaClient"):
        await AmelaClient().detect("/data/a.wav")


def test_outcomes_left_unread_do_not_outlive_a_blocking_client(registry: Path, sentence: Path) -> None:
    with SyncAmelaClient(registry) as client:
        outcomes = client.detect_all(Task(key, detect_request(sentence)) for key in range(1000))
        assert next(outcomes).error is None
    with pytest.raises(RuntimeError, match="with SyncAmelaClient"):
        next(outcomes)
    assert "amela-client" not in {thread.name for thread in threading.enumerate()}


def test_a_blocking_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="with SyncAmelaClient"):
        SyncAmelaClient().servers()


def test_an_event_of_a_kind_unknown_to_this_client_is_passed_over() -> None:
    from amela.vad.v1 import vad_pb2

    assert SpeechEvent.from_proto(vad_pb2.DetectStreamResponse()) is None

"""Recordings through the real front to an engine whose device these tests do not have."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from amela.asr.v1 import asr_pb2
from amela.common.v1.audio_pb2 import Audio
from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.engines import ENGINES
from amela_asr.front import SHORT_SECONDS, Front
from amela_asr.service import AsrService
from amela_asr.settings import AsrSettings
from amela_asr.transcription import Transcript, transcribe
from amela_common.audio import AudioLimits, AudioSource, Clip
from amela_common.errors import RequestError
from amela_common.pool import WorkerPool
from amela_common.server import Metrics, Runtime
from amela_common.server.calls import Context

from .conftest import RATE, Recording, Sentence, record

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRONT_WORKERS = 3


class FakeBatchEngine:
    """Stands for an engine on a GPU: takes several clips at a time and says how long each one is."""

    name = "fake"
    model = "fake"
    device = "fake:0"
    fingerprint = "0" * 16
    warnings: tuple[str, ...] = ()
    capabilities = Capabilities(word_times=True)
    sample_rate = RATE
    max_piece_seconds = 30.0
    concurrency = 3
    batch_seconds = 0.0
    gpu = None

    def __init__(self) -> None:
        self.clips: list[Clip] = []
        self.calls = 0
        self.at_work = 0
        self.most_at_work = 0
        self.arrival = asyncio.Condition()
        self.open = asyncio.Event()
        self.open.set()
        # By the number of the clip, what its first calls fail with.
        self.failing: dict[int, list[RequestError]] = {}
        self.repeats = 1

    async def load(self) -> None: ...

    async def recognize(self, clip: Clip, options: Options, caller: object) -> Recognition:
        self.calls += 1
        number = next((number for number, known in enumerate(self.clips) if known is clip), len(self.clips))
        if number == len(self.clips):
            self.clips.append(clip)
        self.at_work += 1
        self.most_at_work = max(self.at_work, self.most_at_work)
        try:
            async with self.arrival:
                self.arrival.notify_all()
            if options.prompt != "pass":
                await self.open.wait()
            await asyncio.sleep(0.001 * (number % 3))
        finally:
            self.at_work -= 1
        if self.failing.get(number):
            raise self.failing[number].pop()
        text = f"{len(clip.samples)}" * self.repeats
        return Recognition(text, (Word(text, 0.0, clip.duration),))

    async def close(self) -> None: ...


class FakeFragileEngine(FakeBatchEngine):
    """Says how long each clip is in a process of its own, which one of them kills each time."""

    def __init__(self, poison: str) -> None:
        super().__init__()
        self.deaths = 0
        self.pool = WorkerPool(partial(fragile_worker, poison), 1, "fragile", on_restart=self.count)

    def count(self) -> None:
        self.deaths += 1

    async def load(self) -> None:
        await self.pool.start()

    async def recognize(self, clip: Clip, options: Options, caller: object) -> Recognition:
        return Recognition(await self.pool.call(f"{len(clip.samples)}"))

    async def close(self) -> None:
        await self.pool.close()


def fragile_worker(poison: str) -> Callable[[str], Iterator[str]]:
    def answer(text: str) -> Iterator[str]:
        if text == poison:
            os.kill(os.getpid(), signal.SIGKILL)
        yield text

    return answer


@pytest.fixture(autouse=True)
def _workers_can_import_this_module(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(pytestconfig.rootpath)


@pytest.fixture
def engine() -> FakeBatchEngine:
    return FakeBatchEngine()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def long(folder: Path, sentences: list[Sentence]) -> Recording:
    """Long enough to be cut in a second pass."""
    recording = record(folder / "long.wav", sentences * 4, pause=3.0)
    assert recording.duration > SHORT_SECONDS + 30
    return recording


@pytest.fixture(scope="module")
def several(folder: Path, sentences: list[Sentence]) -> Recording:
    """A piece for each sentence, and no second pass."""
    return record(folder / "several.wav", sentences, pause=3.0)


@pytest.fixture(scope="module")
def short(folder: Path, sentences: list[Sentence]) -> Recording:
    return record(folder / "short.wav", sentences[1:2], pause=0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(folder: Path) -> AsyncIterator[Front]:
    limits = AudioLimits(roots=(str(folder),))
    front = Front(limits, RATE, max_piece=30.0, workers=FRONT_WORKERS, on_restart=lambda: None)
    try:
        await front.start()
        yield front
    finally:
        await front.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(several: Recording, front: Front) -> Transcript:
    """Transcript of several sentences when nothing fails."""
    return await run(several, front, FakeBatchEngine())


def source_of(recording: Recording) -> AudioSource:
    return AudioSource(path=str(recording.path))


async def run(
    recording: Recording, front: Front, engine: FakeBatchEngine, options: Options | None = None
) -> Transcript:
    return await transcribe(source_of(recording), options or Options(), front, engine)


async def until_at_work(engine: FakeBatchEngine, clips: int) -> None:
    async with asyncio.timeout(60), engine.arrival:
        await engine.arrival.wait_for(lambda: engine.at_work >= clips)


async def test_every_piece_of_a_long_recording_is_cut_where_the_answer_says(
    long: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    transcript = await run(long, front, engine)
    samples = soundfile.read(long.path, dtype="float32")[0]

    assert transcript.duration == pytest.approx(long.duration)
    assert len(transcript.stitched.pieces) == len(engine.clips) >= len(long.sentences)
    for piece, clip in zip(transcript.stitched.pieces, engine.clips, strict=True):
        np.testing.assert_array_equal(clip.samples, samples[round(piece.start * RATE) :][: len(clip.samples)])
        assert clip.duration == pytest.approx(piece.end - piece.start, abs=2 / RATE)
        assert piece.text == f"{len(clip.samples)}"
    starts = [word.start for word in transcript.stitched.words]
    assert starts == sorted(starts) == [piece.start for piece in transcript.stitched.pieces]


async def test_silence_between_sentences_is_not_sent(
    long: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    transcript = await run(long, front, engine)
    spoken = sum(sentence.duration for sentence in long.sentences)

    assert sum(clip.duration for clip in engine.clips) < spoken + 0.6 * len(long.sentences)
    assert 0.6 * spoken < transcript.speech < spoken + 1


async def test_silence_alone_is_no_speech_and_never_reaches_the_engine(
    folder: Path, front: Front, engine: FakeBatchEngine
) -> None:
    transcript = await run(record(folder / "silence.wav", [], pause=5.0), front, engine)

    assert transcript.no_speech
    assert (transcript.stitched.text, transcript.duration, transcript.speech) == ("", 5.0, 0.0)
    assert engine.clips == []


async def test_one_recording_never_has_more_pieces_at_the_engine_than_that_can_use(
    long: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.open.clear()
    running = asyncio.create_task(run(long, front, engine))
    await until_at_work(engine, engine.concurrency)
    await asyncio.sleep(0.1)
    engine.open.set()
    await running

    assert engine.most_at_work == engine.concurrency


async def test_short_clips_pass_any_number_of_long_recordings_that_wait_for_the_engine(
    long: Recording, short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.open.clear()
    recordings = [asyncio.create_task(run(long, front, engine)) for _ in range(2 * FRONT_WORKERS)]
    await until_at_work(engine, (FRONT_WORKERS - 1) * engine.concurrency)

    async with asyncio.timeout(60):
        clip = await run(short, front, engine, Options(prompt="pass"))

    assert clip.stitched.text and not any(recording.done() for recording in recordings)
    for recording in recordings:
        recording.cancel()
    await asyncio.gather(*recordings, return_exceptions=True)


async def test_a_cancelled_recording_leaves_the_engine_and_sends_it_nothing_more(
    long: Recording, short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.open.clear()
    running = asyncio.create_task(run(long, front, engine))
    await until_at_work(engine, engine.concurrency)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    engine.open.set()
    await run(short, front, engine)

    assert engine.at_work == 0
    assert len(engine.clips) == engine.concurrency + 1


async def test_long_recordings_cancelled_at_any_moment_leave_the_front_to_others(
    long: Recording, short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.open.clear()
    for patience in (0.0, 0.05, 0.3, 1.0):
        recordings = [asyncio.create_task(run(long, front, engine)) for _ in range(2 * FRONT_WORKERS)]
        await asyncio.sleep(patience)
        for recording in recordings:
            recording.cancel()
        await asyncio.gather(*recordings, return_exceptions=True)
    engine.open.set()

    assert (await run(short, front, engine)).stitched.text
    assert (await run(long, front, engine)).stitched.text


@pytest.mark.parametrize("reason", ["WORKER_LOST", "OUT_OF_MEMORY", "INTERNAL"])
async def test_a_piece_that_fails_for_now_is_heard_at_the_second_try(
    several: Recording, front: Front, engine: FakeBatchEngine, whole: Transcript, reason: str
) -> None:
    engine.failing = {2: [RequestError(reason, "this time")], 4: [RequestError("WORKER_LOST", "this time")]}
    transcript = await run(several, front, engine)

    assert transcript == whole
    assert engine.calls == len(engine.clips) + 2
    assert engine.at_work == 0


async def test_a_piece_that_fails_each_time_is_told_and_the_rest_is_kept(
    several: Recording, front: Front, engine: FakeBatchEngine, whole: Transcript
) -> None:
    engine.failing = {
        2: [RequestError("OUT_OF_MEMORY", "too big")] * 9,
        4: [RequestError("INTERNAL", "a fault")] * 9,
    }
    transcript = await run(several, front, engine)
    stitched = transcript.stitched

    assert [failure.error.reason for failure in stitched.failures] == ["OUT_OF_MEMORY", "INTERNAL"]
    assert [failure.start for failure in stitched.failures] == [
        whole.stitched.pieces[number].start for number in (2, 4)
    ]
    assert [*stitched.pieces] == [
        piece for number, piece in enumerate(whole.stitched.pieces) if number not in (2, 4)
    ]
    assert engine.calls == len(engine.clips) + 2


@pytest.mark.parametrize(
    "reason", ["OUTPUT_RUNAWAY", "AUDIO_NOT_FINITE", "QUEUE_FULL", "DRAINING", "ENGINE_LOST"]
)
async def test_what_no_second_try_mends_gets_none(
    several: Recording, front: Front, engine: FakeBatchEngine, reason: str
) -> None:
    engine.failing = {2: [RequestError(reason, "for good")]}
    transcript = await run(several, front, engine)

    assert [failure.error.reason for failure in transcript.stitched.failures] == [reason]
    assert engine.calls == len(engine.clips)


async def test_a_piece_that_kills_its_worker_each_time_is_told_and_the_rest_is_kept(
    several: Recording, front: Front, whole: Transcript
) -> None:
    pieces = whole.stitched.pieces
    poisonous = [piece for piece in pieces if piece.text == pieces[1].text]
    engine = FakeFragileEngine(pieces[1].text)
    try:
        await engine.load()
        stitched = (await run(several, front, engine)).stitched
    finally:
        await engine.close()

    assert [(failure.start, failure.end) for failure in stitched.failures] == [
        (piece.start, piece.end) for piece in poisonous
    ]
    assert {failure.error.reason for failure in stitched.failures} == {"WORKER_LOST"}
    assert [piece.text for piece in stitched.pieces] == [
        piece.text for piece in pieces if piece not in poisonous
    ]
    assert engine.deaths == 2 * len(poisonous)


async def test_a_recording_of_which_every_piece_fails_fails_with_the_first_reason(
    long: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.failing = {number: [RequestError("INTERNAL", f"fault {number}")] * 9 for number in range(1000)}
    engine.failing[0] = [RequestError("OUT_OF_MEMORY", "too big")] * 9

    with pytest.raises(RequestError) as failed:
        await run(long, front, engine)

    assert failed.value.reason == "OUT_OF_MEMORY"


async def test_the_only_piece_of_a_clip_fails_the_call_and_is_left_to_other_servers(
    short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.failing = {0: [RequestError("WORKER_LOST", "the worker has died")]}

    with pytest.raises(RequestError) as failed:
        await run(short, front, engine)

    assert failed.value.reason == "WORKER_LOST"
    assert engine.calls == 1


async def test_a_fault_of_the_engine_itself_is_not_hidden(
    short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    engine.failing = {0: [ZeroDivisionError()]}  # type: ignore[list-item]

    with pytest.raises(ZeroDivisionError):
        await run(short, front, engine)


async def test_a_recording_that_is_cut_short_after_its_survey_fails_alone(
    folder: Path, sentences: list[Sentence], short: Recording, front: Front, engine: FakeBatchEngine
) -> None:
    recording = record(folder / "shrinking.wav", sentences * 4, pause=3.0)
    engine.open.clear()
    running = asyncio.create_task(run(recording, front, engine))
    await until_at_work(engine, engine.concurrency)
    os.truncate(recording.path, 2_000_000)
    engine.open.set()

    with pytest.raises(RequestError) as failed:
        await running

    assert failed.value.reason == "AUDIO_TRUNCATED"
    assert (await run(short, front, engine)).stitched.text


@pytest_asyncio.fixture(loop_scope="module")
async def serve(
    folder: Path, engine: FakeBatchEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[AsrService]]]:
    """Load services over the fake engine in this process."""
    monkeypatch.setitem(ENGINES, "pocketsphinx", lambda settings, runtime: engine)
    services: list[AsrService] = []

    async def serve(**settings: Any) -> AsrService:
        given = AsrSettings(engine="pocketsphinx", audio_root=[folder], front_workers=2, **settings)
        services.append(AsrService(given, Runtime(Metrics())))
        await services[-1].load()
        return services[-1]

    yield serve
    for service in services:
        await service.close()


async def test_an_answer_too_large_for_a_message_is_refused_with_the_cure(
    short: Recording, engine: FakeBatchEngine, serve: Callable[..., Awaitable[AsrService]]
) -> None:
    service = await serve(max_message_bytes=1 << 16)
    request = asr_pb2.TranscribeRequest(audio=Audio(path=str(short.path)))
    engine.repeats = 1 << 14

    with pytest.raises(RequestError, match="shorter stretches") as refused:
        await service.Transcribe(request, cast(Context, None))
    assert refused.value.reason == "AUDIO_TOO_LONG"

    engine.repeats = 1
    assert (await service.Transcribe(request, cast(Context, None))).text


async def test_servers_that_cut_differently_have_different_fingerprints(
    serve: Callable[..., Awaitable[AsrService]],
) -> None:
    infos = [
        await (await serve(max_piece_seconds=seconds)).GetInfo(asr_pb2.GetInfoRequest(), cast(Context, None))
        for seconds in (20.0, 30.0, 30.0)
    ]

    first, second, third = (info.server.model.fingerprint for info in infos)
    assert first != second == third

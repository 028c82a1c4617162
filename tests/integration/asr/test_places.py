"""Clips and long recordings side by side in one service, whose engine these tests do not have."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from amela.asr.v1 import asr_pb2
from amela.common.v1.audio_pb2 import Audio
from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines import ENGINES
from amela_asr.front import SHORT_SECONDS
from amela_asr.service import AsrService
from amela_asr.settings import AsrSettings
from amela_common.audio import Clip
from amela_common.errors import RequestError
from amela_common.server import Metrics, Runtime
from amela_common.server.calls import Context

from .conftest import RATE, Recording, Sentence, record

QUEUE = 4


class FakeStuckEngine:
    """Stands for an engine that is busy for hours with all that comes without a prompt."""

    name = "fake"
    model = "fake"
    device = "fake:0"
    fingerprint = "0" * 16
    warnings: tuple[str, ...] = ()
    capabilities = Capabilities(prompt=True)
    sample_rate = RATE
    max_piece_seconds = 30.0
    concurrency = 3
    batch_seconds = 0.0
    gpu = None

    async def load(self) -> None: ...

    async def recognize(self, clip: Clip, options: Options, caller: object) -> Recognition:
        if options.prompt is None:
            await asyncio.Event().wait()
        return Recognition("heard")

    async def close(self) -> None: ...


@pytest_asyncio.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsrService]:
    monkeypatch.setitem(ENGINES, "pocketsphinx", lambda settings, runtime: FakeStuckEngine())
    settings = AsrSettings(engine="pocketsphinx", audio_root=[tmp_path], front_workers=2, queue=QUEUE)
    service = AsrService(settings, Runtime(Metrics()))
    await service.load()
    yield service
    await service.close()


def call(service: AsrService, recording: Recording, prompt: str | None = None) -> "asyncio.Task[str]":
    request = asr_pb2.TranscribeRequest(audio=Audio(path=str(recording.path)))
    if prompt is not None:
        request.options.prompt = prompt

    async def answer() -> str:
        return (await service.Transcribe(request, cast(Context, None))).text

    return asyncio.create_task(answer())


async def test_clips_pass_as_many_long_recordings_as_there_are_places_and_more_wait_or_are_refused(
    service: AsrService, tmp_path: Path, sentences: list[Sentence]
) -> None:
    long = record(tmp_path / "long.wav", sentences * 4, pause=3.0)
    assert long.duration > SHORT_SECONDS
    short = record(tmp_path / "short.wav", sentences[1:2], pause=0.5)
    info = await service.GetInfo(asr_pb2.GetInfoRequest(), cast(Context, None))
    places = info.server.capacity.concurrency

    recordings = [call(service, long) for _ in range(places + QUEUE - 1)]
    clip = call(service, short, prompt="pass")
    async with asyncio.timeout(120):
        assert await clip == "heard"
    assert not any(recording.done() for recording in recordings)

    recordings += [call(service, long) for _ in range(2)]
    async with asyncio.timeout(120):
        ended, _ = await asyncio.wait(recordings, return_when=asyncio.FIRST_COMPLETED)
    [refused] = [recording.exception() for recording in ended]
    assert isinstance(refused, RequestError) and refused.reason == "QUEUE_FULL"
    async with asyncio.timeout(120):
        assert await call(service, short, prompt="pass") == "heard"

    for recording in recordings:
        recording.cancel()
    await asyncio.gather(*recordings, return_exceptions=True)

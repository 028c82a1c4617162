"""Requests share the front's processes, the places and the device: none keeps them from the others."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
import soundfile
import torch
from amela.common.v1.audio_pb2 import Audio
from amela.sts.v1 import sts_pb2
from amela_common.audio import AudioLimits, AudioSource
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import RequestError
from amela_common.server import Runtime
from amela_common.server.calls import Context
from amela_common.server.metrics import Metrics
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.computing import Computing
from amela_sts.encoder.layers import parse
from amela_sts.engine import Encoded, EncodeJob, Vocoder
from amela_sts.front import AudioShape, End, Front
from amela_sts.pipeline import Pipeline
from amela_sts.service import StsService
from amela_sts.settings import StsSettings
from amela_sts.voices import VoiceIndex

WORKERS = 2
# Far longer than anything here takes.
_PATIENCE = 60
_SHAPE = AudioShape(16_000, parse("[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"), normalize=False)
_VOCODER = cast(Vocoder, SimpleNamespace(config=SimpleNamespace(context=10)))


class FakeComputing:
    """A device that encodes whole recordings and parts of longer ones while it is open to them.

    Its vocoder fails.
    """

    def __init__(self) -> None:
        self.engine = SimpleNamespace(unit_rate=50.0)
        self.open_to_whole, self.open_to_parts = asyncio.Event(), asyncio.Event()
        self._asked = 0
        self._changed = asyncio.Condition()

    async def encode(self, job: EncodeJob, caller: object) -> Encoded:
        async with self._changed:
            self._asked += 1
            self._changed.notify_all()
        await (self.open_to_whole if job.window.whole else self.open_to_parts).wait()
        return Encoded(np.zeros(job.window.keep, np.int64), None)

    async def synthesize(self, job: object, caller: object) -> Any:
        # As with a batcher, the error's own traceback leads to who holds the error.
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(RequestError("INTERNAL", "the vocoder failed"))
        return await failed

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(_PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self._asked >= times)


@pytest.fixture
def computing() -> FakeComputing:
    return FakeComputing()


@pytest_asyncio.fixture
async def pipeline(computing: FakeComputing) -> AsyncIterator[Pipeline]:
    front = Front(AudioLimits(roots=("/",)), _SHAPE, WORKERS, lambda: None)
    await front.start()
    yield Pipeline(front, cast(Computing, computing))
    await front.close()


def _write(path: Path, seconds: int) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * seconds).astype(np.float32)
    soundfile.write(path, noise, 16_000)
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("long") / "long.wav", 500)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("short") / "short.wav", 2)


async def _encode(pipeline: Pipeline, path: Path) -> int:
    """Count the units of a recording."""
    units = 0
    async with aclosing(pipeline.encode(AudioSource(path=str(path)))) as windows:
        async for window in windows:
            units += 0 if isinstance(window, End) else len(window.units)
    return units


async def test_more_short_recordings_than_processes_reach_the_device_at_once(
    pipeline: Pipeline, computing: FakeComputing, short: Path
) -> None:
    recordings = [asyncio.create_task(_encode(pipeline, short)) for _ in range(4 * WORKERS)]
    await computing.until_asked(len(recordings))
    computing.open_to_whole.set()
    assert await asyncio.gather(*recordings) == [99] * len(recordings)


async def test_short_recordings_pass_any_number_of_long_ones_that_wait_for_the_device(
    pipeline: Pipeline, computing: FakeComputing, long: Path, short: Path
) -> None:
    recordings = [asyncio.create_task(_encode(pipeline, long)) for _ in range(2 * WORKERS)]
    await computing.until_asked(WORKERS - 1)
    computing.open_to_whole.set()
    async with asyncio.timeout(_PATIENCE):
        assert await _encode(pipeline, short) == 99
    assert not any(recording.done() for recording in recordings)
    computing.open_to_parts.set()
    async with asyncio.timeout(_PATIENCE):
        assert await asyncio.gather(*recordings) == [24_999] * len(recordings)


async def test_resynthesis_that_fails_half_way_gives_its_process_back(
    pipeline: Pipeline, computing: FakeComputing, long: Path
) -> None:
    computing.open_to_parts.set()
    # Else the garbage collector gives it back sooner or later.
    gc.disable()
    try:
        for _ in range(WORKERS + 1):
            async with asyncio.timeout(_PATIENCE):
                with pytest.raises(RequestError, match="the vocoder failed"):
                    async with aclosing(
                        pipeline.resynthesize(AudioSource(path=str(long)), _VOCODER, VoiceIndex())
                    ) as stretches:
                        await anext(stretches)
        async with asyncio.timeout(_PATIENCE):
            assert await _encode(pipeline, long) == 24_999
    finally:
        gc.enable()


async def test_clips_pass_as_many_long_recordings_as_there_are_places(
    tiny: Path, long: Path, short: Path
) -> None:
    settings = StsSettings(
        model=str(tiny / "tiny.toml"),
        trust=True,
        device="cpu",
        audio_root=[Path("/")],
        front_workers=WORKERS,
        queue=3,
    )
    service = StsService(settings, Runtime(Metrics()))
    service.validate()
    await service.load()
    info = await service.GetInfo(sts_pb2.GetInfoRequest(), cast(Context, None))
    reading, gone = asyncio.Event(), asyncio.Event()

    async def encode(path: Path, *, slowly: bool) -> int:
        request = sts_pb2.EncodeRequest(audio=Audio(path=str(path)))
        units = 0
        async with aclosing(cast(Any, service.Encode(request, cast(Context, None)))) as parts:
            async for part in parts:
                units += len(part.units)
                if slowly:
                    reading.set()
                    await gone.wait()
        return units

    try:
        recordings = [
            asyncio.create_task(encode(long, slowly=True))
            for _ in range(info.server.capacity.concurrency + 1)
        ]
        async with asyncio.timeout(_PATIENCE):
            await reading.wait()
            assert await encode(short, slowly=False) == 99
        assert not any(recording.done() for recording in recordings)
        gone.set()
        async with asyncio.timeout(_PATIENCE):
            assert await asyncio.gather(*recordings) == [24_999] * len(recordings)
    finally:
        await service.close()


@pytest.mark.parametrize(
    ("error", "reason", "failure"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "ENGINE_LOST", True),
        (torch.OutOfMemoryError("CUDA out of memory"), "OUT_OF_MEMORY", False),
        (ValueError("a fault"), "INTERNAL", False),
    ],
)
async def test_a_fault_while_durations_are_predicted_is_told_as_any_other(
    error: Exception, reason: str, failure: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    runtime = Runtime(Metrics())
    computing = Computing(TorchDevice("cpu"), None, None, runtime)
    await computing.load(ModelFiles.find(str(tiny / "tiny.toml"), tiny), trust=True, pos_conv="exact")
    monkeypatch.setattr(computing.engine, "predict_durations", fail)
    pipeline = Pipeline(cast(Front, None), computing)
    try:
        with pytest.raises(RequestError) as caught:
            await pipeline.predict_durations(np.array([1, 2, 3]))
        assert caught.value.reason == reason
        assert (runtime.failure is not None, runtime.stop.is_set()) == (failure, failure)
    finally:
        await computing.close()

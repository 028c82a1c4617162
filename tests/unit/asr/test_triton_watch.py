"""The watch over a Triton that goes away, comes back with another repository, and then with the right one."""

import asyncio
from typing import Any

import numpy as np
import pytest
from amela_common.audio import Clip
from amela_common.errors import RequestError
from amela_common.server import Metrics, Runtime

pytest.importorskip("tritonclient")

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines import triton
from amela_asr.engines.triton_messages import DESCRIBE, Description, encode_description, encode_recognition
from tritonclient.utils import InferenceServerException

OURS = Description("nemo", "tiny.nemo", "0" * 16, "cpu", (), 30.0, Capabilities())
CLIP = Clip(np.zeros(1600, np.float32), 16_000)


class FakeTriton(triton.TritonEngine):
    """An engine whose Triton is whatever the test says."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("host:1", None, None, runtime)
        self.state = "ours"
        self.inferences = asyncio.Condition()

    async def answers(self, state: str) -> None:
        """Change, and wait until the watch has seen it."""
        self.state = state
        async with self.inferences:
            # It begins a second round when it is done with the first.
            await self.inferences.wait()
            await self.inferences.wait()

    async def _infer(self, samples: "np.ndarray[Any, Any]", options: bytes, seconds: float) -> bytes:
        async with self.inferences:
            self.inferences.notify_all()
        match self.state:
            case "away":
                raise InferenceServerException("connection refused", status="StatusCode.UNAVAILABLE")
            case "another version's":
                return b'{"engine": "nemo"}'
        return encode_description(OURS) if options == DESCRIBE else encode_recognition(Recognition("heard"))


class FakeRuntime(Runtime):
    """Tells what the engine says of itself."""

    def __init__(self) -> None:
        super().__init__(Metrics())
        self.said: asyncio.Queue[str] = asyncio.Queue()

    def suspend(self, reason: str) -> None:
        self.said.put_nowait(reason)

    def resume(self) -> None:
        self.said.put_nowait("back")


class FakeClient:
    def __init__(self, *_: object, **__: object) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("before", ["ours", "away"])
async def test_the_server_returns_with_the_right_repository_after_one_of_another_version(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(triton.triton, "InferenceServerClient", FakeClient)
    runtime = FakeRuntime()
    engine = FakeTriton(runtime)
    await engine.load()
    try:
        async with asyncio.timeout(60):
            for _ in range(2):
                if before == "away":
                    engine.state = "away"
                    assert "does not answer" in await runtime.said.get()
                await engine.answers("another version's")
                with pytest.raises(RequestError, match="not of this version") as refused:
                    await engine.recognize(CLIP, Options(), None)
                assert refused.value.reason == "ENGINE_LOST"
                if before == "ours":
                    assert "not of this version" in await runtime.said.get()
                engine.state = "ours"
                assert await runtime.said.get() == "back"
                assert (await engine.recognize(CLIP, Options(), None)).text == "heard"
    finally:
        await engine.close()

"""A server with an engine that does nothing, for tests of the shell around it.

It answers Detect at once, except for the paths `sleep:SECONDS`, `fail:REASON` and `crash`; `lose`
breaks the engine for good.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import amela_common  # noqa: F401 - first: it quiets gRPC's own log before gRPC is imported
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela.vad.v1 import vad_pb2, vad_pb2_grpc
from amela_common.batching import DeviceThread
from amela_common.errors import ConfigError, RequestError
from amela_common.server import Admission, Runtime, ServerSettings, run

if TYPE_CHECKING:
    import grpc.aio


class EchoSettings(ServerSettings):
    """The shell's settings and the places of this server."""

    concurrency: int = 2
    broken: bool = False
    loading_seconds: float = 0
    loading_on_thread: bool = False


class EchoService(vad_pb2_grpc.VadServiceServicer):
    name = "amela.vad.v1.VadService"

    def __init__(self, settings: EchoSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._thread = DeviceThread("loading")
        self._admission = Admission(settings.concurrency, settings.queue, runtime.metrics)

    def validate(self) -> None:
        if self._settings.broken:
            raise ConfigError("--broken was given: leave it out")

    async def load(self) -> ServerInfo:
        if self._settings.loading_on_thread:
            await self._thread.run(time.sleep, self._settings.loading_seconds)
        else:
            await asyncio.sleep(self._settings.loading_seconds)
        return ServerInfo(
            model=Model(engine="echo", name="echo", fingerprint="0" * 16, device="cpu"),
            capacity=Capacity(concurrency=self._settings.concurrency, queue=self._settings.queue),
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        vad_pb2_grpc.add_VadServiceServicer_to_server(self, server)

    async def close(self) -> None:
        self._thread.close()
        print("closed", file=sys.stderr, flush=True)

    async def Detect(self, request: vad_pb2.DetectRequest, context: object) -> vad_pb2.DetectResponse:  # noqa: N802
        async with self._admission.admit():
            verb, _, argument = request.audio.path.partition(":")
            match verb:
                case "sleep":
                    await asyncio.sleep(float(argument))
                case "fail":
                    raise RequestError(argument, f"asked to fail with {argument} für Ünicode", path="x")
                case "crash":
                    raise ValueError("a fault")
                case "lose":
                    self._runtime.fail("the engine is gone")
            return vad_pb2.DetectResponse(no_speech=True)

    async def DetectStream(self, requests: object, context: object) -> object:  # noqa: N802
        yield vad_pb2.DetectStreamResponse()
        raise RequestError("AUDIO_TOO_SHORT", "a stream that fails after its first answer")


if __name__ == "__main__":
    sys.exit(run(EchoService, EchoSettings, "amela-common", "A server that does nothing."))

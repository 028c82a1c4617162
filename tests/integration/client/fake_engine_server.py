"""An ASR server whose engine only pretends: a recording's path says what to do.

``NAME:SECONDS`` is worked on for so long and answered with the text NAME; ``fail:REASON`` fails.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import amela_common  # noqa: F401 - first: it quiets gRPC's own log before gRPC is imported
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela_common.errors import RequestError
from amela_common.server import Admission, Runtime, ServerSettings, run

if TYPE_CHECKING:
    import grpc.aio


class FakeEngineSettings(ServerSettings):
    """The shell's settings and those of the fake engine."""

    concurrency: int = 2
    fingerprint: str = "0123456789abcdef"


class FakeEngineService(asr_pb2_grpc.AsrServiceServicer):
    name = "amela.asr.v1.AsrService"

    def __init__(self, settings: FakeEngineSettings, runtime: Runtime) -> None:
        self._admission = Admission(settings.concurrency, settings.queue, runtime.metrics)
        self._info = ServerInfo(
            model=Model(engine="fake", name="fake", fingerprint=settings.fingerprint, device="cpu"),
            capacity=Capacity(concurrency=settings.concurrency, queue=settings.queue),
        )

    def validate(self) -> None:
        pass

    async def load(self) -> ServerInfo:
        return self._info

    def add_to(self, server: grpc.aio.Server) -> None:
        asr_pb2_grpc.add_AsrServiceServicer_to_server(self, server)

    async def close(self) -> None:
        pass

    async def GetInfo(self, request: object, context: object) -> asr_pb2.GetInfoResponse:  # noqa: N802
        return asr_pb2.GetInfoResponse(server=self._info)

    async def Transcribe(  # noqa: N802
        self, request: asr_pb2.TranscribeRequest, context: object
    ) -> asr_pb2.TranscribeResponse:
        async with self._admission.admit():
            name, _, argument = request.audio.path.removeprefix("/").partition(":")
            if name == "fail":
                raise RequestError(argument, "as planned", path=request.audio.path)
            await asyncio.sleep(float(argument))
            return asr_pb2.TranscribeResponse(text=name, model=self._info.model)


if __name__ == "__main__":
    sys.exit(run(FakeEngineService, FakeEngineSettings, "amela-common", "A server that pretends."))

"""An S2S server whose models only pretend: they answer as the contract says, with units that mean nothing.

A recording's name says what to do: ``fail-REASON`` fails, ``slow-SECONDS`` takes its time, ``torn`` loses the
last part, ``long-SECONDS`` is so long; everything else is four units, 1, 1, 2 and 3.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import amela_common  # noqa: F401 - first: it quiets gRPC's own log before gRPC is imported
import numpy as np
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela.sts.v1 import sts_pb2, sts_pb2_grpc
from amela_common.durations import to_duration
from amela_common.errors import RequestError
from amela_common.server import Admission, Runtime, ServerSettings, run

if TYPE_CHECKING:
    import grpc.aio

RATE = 16_000
HOP = 320
FEATURE_DIM = 2
PART_UNITS = 500


class FakeStsSettings(ServerSettings):
    """The shell's settings and those of the fake models."""

    concurrency: int = 4
    fingerprint: str = "0123456789abcdef"


class FakeStsService(sts_pb2_grpc.StsServiceServicer):
    name = "amela.sts.v1.StsService"

    def __init__(self, settings: FakeStsSettings, runtime: Runtime) -> None:
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
        sts_pb2_grpc.add_StsServiceServicer_to_server(self, server)

    async def close(self) -> None:
        pass

    async def GetInfo(self, request: object, context: object) -> sts_pb2.GetInfoResponse:  # noqa: N802
        return sts_pb2.GetInfoResponse(server=self._info, output_sample_rate_hz=RATE, unit_hop_samples=HOP)

    async def Encode(  # noqa: N802
        self, request: sts_pb2.EncodeRequest, context: object
    ) -> AsyncIterator[sts_pb2.EncodeResponse]:
        async with self._admission.admit():
            units = await _units_of(request.audio.path)
            seconds = to_duration(len(units) * HOP / RATE)
            durations = [1] * len(units)
            if request.deduplicate:
                units, durations = _deduplicated(units)
            for start in range(0, len(units), PART_UNITS):
                part = slice(start, start + PART_UNITS)
                features = np.repeat(units[part], durations[part]).astype("<f4").repeat(FEATURE_DIM)
                yield sts_pb2.EncodeResponse(
                    units=units[part],
                    durations=durations[part],
                    dense_features=features.tobytes() if request.dense_features else b"",
                )
            if "torn" not in request.audio.path:
                yield sts_pb2.EncodeResponse(audio_duration=seconds, model=self._info.model)

    async def Synthesize(  # noqa: N802
        self, request: sts_pb2.SynthesizeRequest, context: object
    ) -> AsyncIterator[sts_pb2.SynthesizeResponse]:
        _check(request.voice)
        if not request.durations and not request.predict_durations:
            raise RequestError("INVALID_REQUEST", "durations: they are missing", field="durations")
        durations = list(request.durations) or [2] * len(request.units)
        units = np.repeat(list(request.units), durations).tolist()
        async with self._admission.admit():
            for start in range(0, len(units), PART_UNITS):
                yield sts_pb2.SynthesizeResponse(samples=_spoken(units[start : start + PART_UNITS]))
            seconds = to_duration(len(units) * HOP / RATE)
            yield sts_pb2.SynthesizeResponse(audio_duration=seconds, model=self._info.model)

    async def Resynthesize(  # noqa: N802
        self, request: sts_pb2.ResynthesizeRequest, context: object
    ) -> AsyncIterator[sts_pb2.ResynthesizeResponse]:
        _check(request.voice)
        async with self._admission.admit():
            units = await _units_of(request.audio.path)
            for start in range(0, len(units), PART_UNITS):
                part = units[start : start + PART_UNITS]
                yield sts_pb2.ResynthesizeResponse(units=part, samples=_spoken(part))
            if "torn" not in request.audio.path:
                seconds = to_duration(len(units) * HOP / RATE)
                yield sts_pb2.ResynthesizeResponse(audio_duration=seconds, model=self._info.model)


async def _units_of(path: str) -> list[int]:
    what, _, argument = PurePosixPath(path).stem.partition("-")
    match what:
        case "fail":
            raise RequestError(argument, "as planned", path=path)
        case "slow":
            await asyncio.sleep(float(argument))
        case "long":
            return [unit % 7 for unit in range(int(float(argument) * RATE / HOP))]
    return [1, 1, 2, 3]


def _deduplicated(units: list[int]) -> tuple[list[int], list[int]]:
    starts = np.flatnonzero(np.diff(units, prepend=-1))
    return np.array(units)[starts].tolist(), np.diff(starts, append=len(units)).tolist()


def _spoken(units: Sequence[int]) -> bytes:
    """Say unit 1 as 0.1, unit 2 as 0.2, …; from 10 on it is louder than audio can be."""
    return np.repeat(np.array(units, "<f4") / 10, HOP).astype("<f4").tobytes()


def _check(voice: sts_pb2.Voice) -> None:
    if voice.speaker_name not in ("", "ex01"):
        raise RequestError("UNSUPPORTED_OPTION", f"no speaker {voice.speaker_name!r}: it has ex01")


if __name__ == "__main__":
    sys.exit(run(FakeStsService, FakeStsSettings, "amela-common", "A server that pretends."))

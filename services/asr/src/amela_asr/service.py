"""The contract's AsrService over one engine."""

import asyncio
import time
from dataclasses import asdict
from functools import partial

import grpc.aio
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela_common.audio import AudioSource
from amela_common.durations import to_duration
from amela_common.errors import ConfigError
from amela_common.server import Admission, Runtime
from amela_common.server.calls import Context
from amela_common.voice import detector

from amela_asr import cutting, stitching
from amela_asr.engines import create_engine
from amela_asr.fingerprint import fingerprint
from amela_asr.front import Front
from amela_asr.options import check_options, options_from_proto
from amela_asr.responses import response_of
from amela_asr.settings import AsrSettings
from amela_asr.transcription import transcribe


class AsrService(asr_pb2_grpc.AsrServiceServicer):
    """Speech recognition as the server shell runs it."""

    name = "amela.asr.v1.AsrService"

    def __init__(self, settings: AsrSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._metrics = runtime.metrics
        self._engine = create_engine(settings, runtime)
        self._front = Front(
            settings.audio_limits,
            self._engine.sample_rate,
            settings.max_piece_seconds,
            settings.front_workers,
            runtime.metrics.worker_restarts.inc,
        )
        self._admission = Admission(
            # A request for each place at the engine, and as many more as can get ready meanwhile.
            self._engine.concurrency + settings.front_workers,
            settings.queue,
            runtime.metrics,
        )
        # Long recordings wait for one another, for hours at times: the places of clips are not for that.
        self._long_admission = Admission(self._admission.concurrency, settings.queue, runtime.metrics)
        self._info = ServerInfo()

    def validate(self) -> None:
        """Check what the engine can be given."""
        longest = self._engine.max_piece_seconds
        if self._settings.max_piece_seconds > longest:
            raise ConfigError(
                f"--max-piece-seconds {self._settings.max_piece_seconds:g}: {self._engine.name} with"
                f" {self._engine.model} takes pieces of at most {longest:g} s"
            )

    async def load(self) -> ServerInfo:
        """Load the engine and start the front."""
        await asyncio.gather(self._engine.load(), self._front.start())
        self._info = ServerInfo(
            model=Model(
                engine=self._engine.name,
                name=self._engine.model,
                fingerprint=fingerprint(
                    self._engine.fingerprint,
                    detector.fingerprint(),
                    cutting.RESULTS_VERSION,
                    stitching.RESULTS_VERSION,
                    self._settings.max_piece_seconds,
                ),
                device=self._engine.device,
                warnings=self._engine.warnings,
            ),
            capacity=Capacity(
                concurrency=self._admission.concurrency,
                queue=self._admission.queue,
                batch_seconds=self._engine.batch_seconds,
            ),
            gpu=self._engine.gpu,
        )
        # The shell adds version and limits to this very message, and GetInfo answers with it.
        return self._info

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the methods."""
        asr_pb2_grpc.add_AsrServiceServicer_to_server(self, server)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(self._engine.close(), self._front.close())

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: asr_pb2.GetInfoRequest, context: Context
    ) -> asr_pb2.GetInfoResponse:
        """Say what runs here."""
        return asr_pb2.GetInfoResponse(
            server=self._info,
            capabilities=asr_pb2.Capabilities(**asdict(self._engine.capabilities)),
            sample_rate_hz=self._engine.sample_rate,
            max_piece=to_duration(self._settings.max_piece_seconds),
            detector_fingerprint=detector.fingerprint(),
        )

    async def Transcribe(  # noqa: N802 - the contract's name
        self, request: asr_pb2.TranscribeRequest, context: Context
    ) -> asr_pb2.TranscribeResponse:
        """Transcribe one recording."""
        options = options_from_proto(request.options)
        check_options(options, self._engine.capabilities, self._engine.model)
        source = AudioSource.from_proto(request.audio)
        async with self._admission.admit() as place:
            since = time.monotonic()
            front = self._front.for_request(partial(place.move_to, self._long_admission))
            transcript = await transcribe(source, options, front, self._engine)
            self._metrics.audio("Transcribe", transcript.duration, time.monotonic() - since)
        response = response_of(transcript, options, self._info.model)
        if response.ByteSize() > self._settings.max_message_bytes:
            raise source.error(
                "AUDIO_TOO_LONG",
                f"its transcript takes {response.ByteSize()} bytes, and a message of this server may have"
                f" {self._settings.max_message_bytes}: ask for shorter stretches, or without words",
            )
        return response

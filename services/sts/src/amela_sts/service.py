"""The contract's StsService over one engine."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import grpc.aio
import numpy as np
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela.sts.v1 import sts_pb2, sts_pb2_grpc
from amela_common.audio import AudioSource
from amela_common.batching.torch_device import TorchDevice
from amela_common.durations import to_duration
from amela_common.errors import ConfigError, RequestError
from amela_common.server import Admission, Runtime
from amela_common.server.calls import Context

from amela_sts import compat
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.computing import Computing
from amela_sts.engine import Vocoder
from amela_sts.front import End, Front
from amela_sts.parts import encoded_parts, part_bytes, spoken_parts
from amela_sts.pipeline import Pipeline
from amela_sts.requests import check_length, durations_of, units_of
from amela_sts.settings import StsSettings
from amela_sts.units import Ints, RunLengths, expand

# Frames that are expanded at a time: a unit may last for hours.
_PIECE_FRAMES = 10_000
# Requests at a time that keep a GPU's batches full; clips of a few seconds are the usual ones.
_GPU_CONCURRENCY = 64


class StsService(sts_pb2_grpc.StsServiceServicer):
    """Units and resynthesis as the server shell runs them."""

    name = "amela.sts.v1.StsService"

    def __init__(self, settings: StsSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._metrics = runtime.metrics
        self._part_bytes = part_bytes(settings.max_message_bytes)
        self._device = TorchDevice(settings.device)
        self._computing = Computing(self._device, settings.batch_seconds, settings.gpu_memory_mib, runtime)
        self._admission = Admission(
            _GPU_CONCURRENCY if self._device.is_cuda else settings.front_workers + 1,
            settings.queue,
            runtime.metrics,
        )
        # Else long recordings that wait for one another would take all places from the short ones.
        self._long_admission = Admission(self._admission.concurrency, settings.queue, runtime.metrics)
        self._front: Front | None = None
        self._pipeline: Pipeline
        self._files: ModelFiles
        self._info = sts_pb2.GetInfoResponse()

    def validate(self) -> None:
        """Look for the model's files and for the libraries that read them."""
        faults = compat.faults()
        if faults:
            raise ConfigError("; ".join(faults))
        self._files = ModelFiles.find(self._settings.model, self._settings.checkpoint_root)

    async def load(self) -> ServerInfo:
        """Load the models, then start the processes that decode for them."""
        settings, computing = self._settings, self._computing
        await computing.load(self._files, trust=settings.trust, pos_conv=settings.pos_conv)
        self._front = Front(
            settings.audio_limits,
            computing.engine.shape,
            settings.front_workers,
            self._metrics.worker_restarts.inc,
        )
        await self._front.start()
        self._pipeline = Pipeline(self._front, computing)
        self._info = self._describe()
        # The shell adds version and limits to this very message, and GetInfo answers with it.
        return self._info.server

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the methods."""
        sts_pb2_grpc.add_StsServiceServicer_to_server(self, server)

    async def close(self) -> None:
        """End the processes and the device's thread."""
        if self._front is not None:
            await self._front.close()
        await self._computing.close()

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: sts_pb2.GetInfoRequest, context: Context
    ) -> sts_pb2.GetInfoResponse:
        """Say what runs here."""
        return self._info

    async def Encode(  # noqa: N802 - the contract's name
        self, request: sts_pb2.EncodeRequest, context: Context
    ) -> AsyncIterator[sts_pb2.EncodeResponse]:
        """Turn a recording into units."""
        source = AudioSource.from_proto(request.audio)
        run_lengths = RunLengths()
        # A part goes out when the next one is there, because the last one has more to say.
        held = sts_pb2.EncodeResponse()
        async with (
            self._admission.admit() as place,
            aclosing(
                self._pipeline.encode(
                    source,
                    dense=request.dense_features,
                    when_long=partial(place.move_to, self._long_admission),
                )
            ) as windows,
        ):
            since = time.monotonic()
            async for window in windows:
                if isinstance(window, End):
                    held.audio_duration.CopyFrom(to_duration(window.seconds))
                    self._metrics.audio("Encode", window.seconds, time.monotonic() - since)
                    break
                units, durations = window.units, np.ones_like(window.units)
                if request.deduplicate:
                    units, durations = run_lengths.push(units)
                for part in encoded_parts(units, durations, window.features, self._part_bytes):
                    if held.ByteSize():
                        yield held
                    held = part
        units, durations = run_lengths.finish()
        held.units.extend(units)
        held.durations.extend(durations)
        held.model.CopyFrom(self._info.server.model)
        yield held

    async def Synthesize(  # noqa: N802 - the contract's name
        self, request: sts_pb2.SynthesizeRequest, context: Context
    ) -> AsyncIterator[sts_pb2.SynthesizeResponse]:
        """Turn units into audio."""
        vocoder = self._vocoder()
        voice = vocoder.voices.find(request.voice)
        units = units_of(request, vocoder.config.vocabulary)
        durations = durations_of(request, units, vocoder)
        held, spoken, hop = sts_pb2.SynthesizeResponse(), 0, vocoder.config.hop
        async with self._admission.admit():
            since = time.monotonic()
            if durations is None:
                durations = await self._pipeline.predict_durations(units)
            rate = vocoder.config.sample_rate / hop
            check_length(int(durations.sum()), rate, self._settings.max_audio_seconds)
            async with aclosing(self._pipeline.speak(_pieces(units, durations), vocoder, voice)) as stretches:
                async for stretch in stretches:
                    spoken += len(stretch.samples)
                    for _, samples in spoken_parts(stretch.samples, hop, self._part_bytes):
                        if held.samples:
                            yield held
                        held = sts_pb2.SynthesizeResponse(samples=samples)
            seconds = spoken / vocoder.config.sample_rate
            self._metrics.audio("Synthesize", seconds, time.monotonic() - since)
        held.audio_duration.CopyFrom(to_duration(seconds))
        held.model.CopyFrom(self._info.server.model)
        yield held

    async def Resynthesize(  # noqa: N802 - the contract's name
        self, request: sts_pb2.ResynthesizeRequest, context: Context
    ) -> AsyncIterator[sts_pb2.ResynthesizeResponse]:
        """Turn a recording into audio, through units."""
        vocoder = self._vocoder()
        voice = vocoder.voices.find(request.voice)
        source = AudioSource.from_proto(request.audio)
        held, spoken = sts_pb2.ResynthesizeResponse(), 0
        async with (
            self._admission.admit() as place,
            aclosing(
                self._pipeline.resynthesize(
                    source, vocoder, voice, when_long=partial(place.move_to, self._long_admission)
                )
            ) as stretches,
        ):
            since = time.monotonic()
            async for stretch in stretches:
                spoken += len(stretch.samples)
                for frames, samples in spoken_parts(stretch.samples, vocoder.config.hop, self._part_bytes):
                    if held.samples:
                        yield held
                    held = sts_pb2.ResynthesizeResponse(samples=samples, units=stretch.units[frames])
            seconds = spoken / vocoder.config.sample_rate
            self._metrics.audio("Resynthesize", seconds, time.monotonic() - since)
        held.audio_duration.CopyFrom(to_duration(seconds))
        held.model.CopyFrom(self._info.server.model)
        yield held

    def _vocoder(self) -> Vocoder:
        vocoder = self._computing.engine.vocoder
        if vocoder is None:
            raise RequestError(
                "UNSUPPORTED_OPTION",
                f"{self._info.server.model.name} has no vocoder that this service runs: it only encodes"
                " (Tacotron 2 and WaveGlow are not served; take a model with a HiFi-GAN)",
            )
        return vocoder

    def _describe(self) -> sts_pb2.GetInfoResponse:
        engine = self._computing.engine
        info = sts_pb2.GetInfoResponse(
            server=ServerInfo(
                model=Model(
                    engine="fairseq",
                    name=engine.name,
                    fingerprint=engine.fingerprint,
                    device=self._device.name,
                    warnings=engine.warnings,
                ),
                capacity=Capacity(
                    concurrency=self._admission.concurrency,
                    queue=self._admission.queue,
                    batch_seconds=self._computing.batch_seconds,
                ),
                gpu=self._device.describe(),
            ),
            vocabulary=engine.quantizer.vocabulary,
            input_sample_rate_hz=engine.encoder.sample_rate,
            unit_rate_hz=engine.unit_rate,
            feature_dim=engine.encoder.dim,
        )
        if engine.vocoder is not None:
            info.output_sample_rate_hz = engine.vocoder.config.sample_rate
            info.unit_hop_samples = engine.vocoder.config.hop
            info.duration_prediction = engine.vocoder.config.predicts_durations
            info.speakers.extend(engine.vocoder.voices.speakers)
            info.styles.extend(engine.vocoder.voices.styles)
        return info


async def _pieces(units: Ints, durations: Ints) -> AsyncIterator[Ints]:
    for piece in expand(units, durations, _PIECE_FRAMES):
        yield piece

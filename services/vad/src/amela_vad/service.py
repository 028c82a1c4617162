"""The contract's VadService."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc.aio
from amela.common.v1.server_pb2 import Capacity, ServerInfo
from amela.vad.v1 import vad_pb2, vad_pb2_grpc
from amela_common.audio import AudioSource
from amela_common.durations import from_duration, to_duration
from amela_common.errors import RequestError
from amela_common.pool import WorkerPool
from amela_common.server import Admission, Runtime
from amela_common.server.calls import Context
from amela_common.voice.detector import HOP, SAMPLE_RATE
from amela_common.voice.live import Edge

from amela_vad.detection import Detection, DetectionHandler
from amela_vad.engine import canary, model
from amela_vad.live import LiveDetection, slices
from amela_vad.options import options_from_proto
from amela_vad.settings import VadSettings


class VadService(vad_pb2_grpc.VadServiceServicer):
    """Voice activity as the server shell runs it: recordings in processes, live streams on threads."""

    name = "amela.vad.v1.VadService"

    def __init__(self, settings: VadSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._metrics = runtime.metrics
        self._pool = WorkerPool(
            partial(DetectionHandler, settings.audio_limits, settings.max_message_bytes),
            settings.workers,
            "vad",
            on_restart=runtime.metrics.worker_restarts.inc,
        )
        self._admission = Admission(settings.workers, settings.queue, runtime.metrics)
        # A stream waits for its speaker most of the time, so streams need no queue and few threads.
        self._streams = Admission(settings.streams, 0, runtime.metrics)
        self._threads = ThreadPoolExecutor(settings.workers, "live")
        self._info = ServerInfo()

    def validate(self) -> None:
        """Try the detector out, which streams use in this very process."""
        canary()

    async def load(self) -> ServerInfo:
        """Start the workers."""
        await self._pool.start()
        self._info = ServerInfo(
            model=model(),
            capacity=Capacity(concurrency=self._admission.concurrency, queue=self._admission.queue),
        )
        # The shell adds version and limits to this very message, and GetInfo answers with it.
        return self._info

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the methods."""
        vad_pb2_grpc.add_VadServiceServicer_to_server(self, server)

    async def close(self) -> None:
        """End all processes and threads."""
        await self._pool.close()
        self._threads.shutdown(cancel_futures=True)

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: vad_pb2.GetInfoRequest, context: Context
    ) -> vad_pb2.GetInfoResponse:
        """Say what runs here."""
        return vad_pb2.GetInfoResponse(server=self._info, sample_rate_hz=SAMPLE_RATE, hop=to_duration(HOP))

    async def Detect(  # noqa: N802 - the contract's name
        self, request: vad_pb2.DetectRequest, context: Context
    ) -> vad_pb2.DetectResponse:
        """Find the speech in one recording."""
        detection = Detection(
            source=AudioSource.from_proto(request.audio),
            options=options_from_proto(request.segmentation),
            frame_probabilities=request.frame_probabilities,
        )
        async with self._admission.admit():
            since = time.monotonic()
            response = vad_pb2.DetectResponse.FromString(await self._pool.call(detection))
            self._metrics.audio("Detect", from_duration(response.audio_duration), time.monotonic() - since)
        return response

    async def DetectStream(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[vad_pb2.DetectStreamRequest], context: Context
    ) -> AsyncIterator[vad_pb2.DetectStreamResponse]:
        """Answer starts and ends of speech as they are certain."""
        live: LiveDetection | None = None
        try:
            async with self._streams.admit():
                async for request in request_iterator:
                    if live is None:
                        live = LiveDetection(options_from_proto(request.segmentation))
                    elif request.HasField("segmentation"):
                        raise RequestError(
                            "INVALID_REQUEST",
                            "segmentation came with a later message: send it with the first one only",
                            field="segmentation",
                        )
                    for part in slices(request.samples):
                        for edge in await self._on_thread(partial(live.push, part)):
                            yield _event(edge, live.position)
                if live is not None:
                    for edge in await self._on_thread(live.finish):
                        yield _event(edge, live.position)
                    live.check_end()
        finally:
            if live is not None:
                self._metrics.audio_seconds.labels("DetectStream").inc(live.position)

    async def _on_thread(self, compute: Callable[[], list[Edge]]) -> list[Edge]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, compute)


def _event(edge: Edge, position: float) -> vad_pb2.DetectStreamResponse:
    time_of_edge = to_duration(edge.time)
    if edge.is_start:
        return vad_pb2.DetectStreamResponse(speech_start=time_of_edge, position=to_duration(position))
    return vad_pb2.DetectStreamResponse(speech_end=time_of_edge, position=to_duration(position))

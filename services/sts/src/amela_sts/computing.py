"""The engine on its device, for many requests at once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from amela_common.batching import Batcher, BatchMetrics, Budget, DeviceThread
from amela_common.batching.budget import start_items
from amela_common.batching.calibration import Measurement, calibrate
from amela_common.batching.torch_device import TorchDevice
from amela_common.server import Runtime
from numpy.typing import NDArray

from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.encoder.loading import PosConv
from amela_sts.engine import Encoded, EncodeJob, StsEngine, SynthesizeJob
from amela_sts.front import CONTEXT_SECONDS, MIDDLE_SECONDS
from amela_sts.units import Ints
from amela_sts.voices import VoiceIndex
from amela_sts.windows import Window

# Seconds of audio in a window of the vocoder: what one part of an answer holds.
SPOKEN_SECONDS = 30
# How long an item waits for others while the device is idle.
_MAX_WAIT_SECONDS = 0.01


class Computing:
    """Loads the engine on the device's one thread and batches what requests ask of it.

    Parameters
    ----------
    batch_seconds
        Most padded seconds in a batch; 0 for one item at a time. None: one at a time on a CPU, found by
        trying on a GPU.
    memory_mib
        Memory of a GPU that models and batches may take. None: what there is.
    """

    def __init__(
        self, device: TorchDevice, batch_seconds: float | None, memory_mib: int | None, runtime: Runtime
    ) -> None:
        self.device = device
        self.batch_seconds = 0.0
        """Most padded seconds in a batch for the encoder, once it is loaded; 0 for one item at a time."""
        self._batch_seconds = batch_seconds
        self._memory_mib = memory_mib
        self._runtime = runtime
        self._thread = DeviceThread("sts")
        self._batchers: list[Batcher[Any, Any]] = []
        self._encoding: Batcher[EncodeJob, Encoded]
        self._speaking: Batcher[SynthesizeJob, NDArray[np.float32]]
        self._predicting: Batcher[Window, Ints]
        self.engine: StsEngine

    async def load(self, files: ModelFiles, *, trust: bool, pos_conv: PosConv) -> None:
        """Load the models and try them out; raises `ConfigError`."""
        self.engine = await self._thread.run(self._make_engine, files, trust, pos_conv)
        await self._thread.run(self.engine.canary)
        metrics = BatchMetrics(self._runtime.metrics.registry)
        whole = float(MIDDLE_SECONDS + 2 * CONTEXT_SECONDS)
        budget = Budget(whole, items=1)
        if self.engine.encoder.takes_batches:
            budget = await self._thread.run(self._budget, self._try_encoding, whole)
        self.batch_seconds = 0.0 if budget.items == 1 else round(budget.seconds, 1)
        self._encoding = self._batcher(self.engine.encode, budget, metrics)
        if self.engine.vocoder is not None:
            self._speaking = self._batcher(
                self.engine.synthesize,
                await self._thread.run(self._budget, self._try_speaking, float(SPOKEN_SECONDS)),
                metrics,
            )
            # One at a time, and in turns with other requests; a device that breaks here is found out as well.
            self._predicting = self._batcher(self._predict, Budget(whole, items=1), metrics)

    async def encode(self, job: EncodeJob, caller: object) -> Encoded:
        """Encode a window; raises `RequestError`."""
        seconds = len(job.window.items) / self.engine.encoder.sample_rate
        return await self._encoding.submit(job, seconds=seconds, caller=caller)

    async def synthesize(self, job: SynthesizeJob, caller: object) -> NDArray[np.float32]:
        """Speak a window; raises `RequestError`."""
        seconds = len(job.window.items) / self.engine.unit_rate
        return await self._speaking.submit(job, seconds=seconds, caller=caller)

    async def predict_durations(self, window: Window, caller: object) -> Ints:
        """Predict the durations of a window's deduplicated units; raises `RequestError`."""
        seconds = len(window.items) / self.engine.unit_rate
        return await self._predicting.submit(window, seconds=seconds, caller=caller)

    async def close(self) -> None:
        """Stop; also after a `load` that failed half way."""
        for batcher in self._batchers:
            await batcher.close()
        self._thread.close()

    def _make_engine(self, files: ModelFiles, trust: bool, pos_conv: PosConv) -> StsEngine:
        self.device.keep_to(self._memory_mib)
        with self.device.room_for(files.name):
            return StsEngine(files, self.device.torch, trust=trust, pos_conv=pos_conv)

    def _batcher(
        self, compute: Callable[..., Any], budget: Budget, metrics: BatchMetrics
    ) -> Batcher[Any, Any]:
        batcher: Batcher[Any, Any] = Batcher(
            compute,
            self._thread,
            self.device,
            budget,
            max_wait=0.0 if budget.items == 1 else _MAX_WAIT_SECONDS,
            metrics=metrics,
            on_broken=self._runtime.fail,
        )
        self._batchers.append(batcher)
        return batcher

    def _predict(self, windows: Sequence[Window]) -> list[Ints]:
        return [self.engine.predict_durations(window) for window in windows]

    def _budget(self, trial: Callable[[int, float], object], longest: float) -> Budget:
        if self._batch_seconds == 0 or (self._batch_seconds is None and not self.device.is_cuda):
            return Budget(longest, items=1)
        if self._batch_seconds is not None:
            return Budget(self._batch_seconds)

        def measure(count: int, seconds: float) -> Measurement:
            return self.device.measure(partial(trial, count, seconds), count, seconds)

        available = self.device.free_memory()
        assert available is not None
        return calibrate(measure, start_items(available / (1 << 20)), longest, available)

    def _try_encoding(self, count: int, seconds: float) -> None:
        self.engine.encode([EncodeJob(self._quiet_window(seconds))] * count)

    def _try_speaking(self, count: int, seconds: float) -> None:
        frames = int(seconds * self.engine.unit_rate)
        window = Window(np.zeros(frames, np.int64), 0, frames, whole=True)
        self.engine.synthesize([SynthesizeJob(window, VoiceIndex())] * count)

    def _quiet_window(self, seconds: float) -> Window:
        samples = np.zeros(int(seconds * self.engine.encoder.sample_rate), np.float32)
        return Window(samples, 0, self.engine.encoder.convolutions.frames(len(samples)), whole=True)

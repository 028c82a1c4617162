"""An engine that gathers the clips of all its callers into batches for one device."""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import numpy as np
from amela_common.audio import Clip
from amela_common.batching import Batcher, BatchMetrics, Budget, DeviceThread
from amela_common.batching.budget import start_budget, start_items
from amela_common.batching.calibration import Measurement, calibrate
from amela_common.batching.nvml import device_memory_mib
from amela_common.errors import ConfigError, RequestError
from amela_common.server import Runtime

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.engines.screening import check_clip, is_silent

log = logging.getLogger(__name__)

# What clips last on the whole: so many of them fill a batch.
_TYPICAL_SECONDS = 5.0
_CANARY_SECONDS = 1.0


@dataclass(frozen=True)
class Batching:
    """What an operator says about batches.

    Attributes
    ----------
    piece_seconds
        Longest clip that the service cuts.
    max_wait
        How long a clip may wait for others while the device is idle, in seconds.
    items
        Most clips in a batch. None: any number.
    seconds
        Most padded seconds in a batch. None, and no `items` either: found by calibration.
    device
        Where it is to compute, by PyTorch's name, or ``auto``.
    """

    piece_seconds: float
    max_wait: float
    device: str
    items: int | None = None
    seconds: float | None = None

    @property
    def fixed(self) -> Budget | None:
        """The budget that the operator sets; None if it is to be found."""
        if self.seconds is None and self.items is None:
            return None
        if self.seconds is None:
            assert self.items is not None
            return replace(Budget(float("inf")).lowered_to(self.items, self.piece_seconds), items=self.items)
        return Budget(self.seconds, items=self.items)


class BatchedEngine:
    """A recogniser on its device's thread, behind a batcher.

    Parameters
    ----------
    model
        The model as its users call it.
    load
        Loads the model; called on the thread that will own the device.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str, load: Callable[[], Recognizer], batching: Batching, runtime: Runtime
    ) -> None:
        self.name = "nemo"
        self.model = model
        self.device = batching.device
        self.fingerprint = ""
        self.warnings: tuple[str, ...] = ()
        self.capabilities = Capabilities()
        # Known, and held against the settings, once the model is loaded.
        self.max_piece_seconds = float("inf")
        self._load = load
        self._batching = batching
        self._runtime = runtime
        self._memory_mib = _memory_mib(batching.device)
        start = batching.fixed or start_budget(self._memory_mib, batching.piece_seconds)
        # One batch on the device and one that gathers meanwhile.
        self.concurrency = max(8, ceil(2 * start.seconds / _TYPICAL_SECONDS))
        self._thread = DeviceThread("device")
        self._recognizer: Recognizer | None = None
        self._batcher: Batcher[Utterance, Recognition] | None = None

    async def load(self) -> None:
        """Load the model, recognise a canary, and find how large a batch may be."""
        recognizer = self._recognizer = await self._thread.run(self._load)
        self.name = recognizer.name
        self.model = recognizer.model
        self.device = recognizer.device.name
        self.fingerprint = recognizer.fingerprint
        self.warnings = recognizer.warnings
        self.capabilities = recognizer.capabilities
        self.max_piece_seconds = recognizer.max_piece_seconds
        if self._batching.piece_seconds > self.max_piece_seconds:
            raise ConfigError(
                f"--max-piece-seconds {self._batching.piece_seconds:g}: {self.model} takes pieces of at most"
                f" {self.max_piece_seconds:g} s"
            )
        await self._thread.run(_try_out, recognizer)
        budget = self._batching.fixed
        if budget is None:
            budget = await self._thread.run(self._calibrate, recognizer)
        log.info(
            "batches", extra={"budget_seconds": round(budget.seconds, 1), "memory_mib": self._memory_mib}
        )
        self._batcher = Batcher(
            recognizer.recognize,
            self._thread,
            recognizer.device,
            budget,
            max_wait=self._batching.max_wait,
            metrics=BatchMetrics(self._runtime.metrics.registry),
            on_broken=self._runtime.fail,
        )

    async def recognize(self, clip: Clip, options: Options, caller: Hashable) -> Recognition:
        """Recognise one clip in a batch with others; what holds no sound is not given to the model."""
        check_clip(clip)
        if is_silent(clip):
            return Recognition("", words=() if options.words else None)
        assert self._batcher is not None
        assert self._recognizer is not None
        kind = self._recognizer.kind(options)
        return await self._batcher.submit(
            Utterance(clip, options), seconds=clip.duration, caller=caller, kind=kind
        )

    async def close(self) -> None:
        """Stop; the device's thread ends after the batch it computes."""
        if self._batcher is not None:
            await self._batcher.close()
        self._thread.close()

    def _calibrate(self, recognizer: Recognizer) -> Budget:
        piece = self._batching.piece_seconds
        available = recognizer.device.free_memory()
        if available is None:
            return start_budget(self._memory_mib, piece)
        measure = partial(_measure, recognizer)
        # The first batch of a shape is slow for reasons of its own.
        measure(1, piece)
        return calibrate(measure, start_items(self._memory_mib), piece, available)


def _memory_mib(device: str) -> float | None:
    """Ask for the memory of a device that PyTorch has not been asked for yet."""
    if device == "cpu":
        return None
    position = device.removeprefix("cuda").removeprefix(":")
    return device_memory_mib(int(position) if position.isdigit() else 0)


def _measure(recognizer: Recognizer, count: int, seconds: float) -> Measurement:
    batch = _noise(count, seconds)
    return recognizer.device.measure(lambda: recognizer.recognize(batch), count, seconds)


def _try_out(recognizer: Recognizer) -> None:
    (heard,) = recognizer.recognize(_noise(1, _CANARY_SECONDS))
    if isinstance(heard, RequestError):
        log.info("the canary has no text", extra={"error": heard.message})


def _noise(count: int, seconds: float) -> Sequence[Utterance]:
    samples = np.random.default_rng(0).normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)
    return [Utterance(Clip(samples, SAMPLE_RATE), Options())] * count

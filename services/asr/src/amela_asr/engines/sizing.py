"""How large a recogniser's batches are: what the operator says, or what measuring finds."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from amela_common.audio import Clip
from amela_common.batching import Budget
from amela_common.batching.budget import start_budget
from amela_common.batching.calibration import Measurement, calibrate, calibrate_throughput
from amela_common.batching.nvml import visible_gpu
from amela_common.batching.visible_gpus import MIB
from amela_common.errors import RequestError

from amela_asr.engine import Options
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.settings import AsrSettings

log = logging.getLogger(__name__)

# What clips last on the whole: so many of them fill a batch.
TYPICAL_SECONDS = 5.0
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
    memory_mib
        Memory of its GPU that this server may take. None: all of it.
    """

    piece_seconds: float
    max_wait: float
    device: str
    items: int | None = None
    seconds: float | None = None
    memory_mib: int | None = None

    @classmethod
    def from_settings(cls, settings: AsrSettings) -> "Batching":
        """Take what the server's settings say."""
        return cls(
            settings.max_piece_seconds,
            settings.max_wait_ms / 1000,
            settings.device,
            settings.batch_size,
            settings.batch_seconds,
            settings.gpu_memory_mib,
        )

    @property
    def fixed(self) -> Budget | None:
        """The budget that the operator sets; None if it is to be found."""
        if self.seconds is None and self.items is None:
            return None
        if self.seconds is None:
            assert self.items is not None
            return replace(Budget(float("inf")).lowered_to(self.items, self.piece_seconds), items=self.items)
        return Budget(self.seconds, items=self.items)

    @property
    def start(self) -> Budget:
        """What to begin with before anything is measured."""
        return self.fixed or start_budget(self._memory_mib(), self.piece_seconds)

    def _memory_mib(self) -> float | None:
        """Ask for the memory of a device that PyTorch has not been asked for yet."""
        if self.device == "cpu":
            return None
        if self.memory_mib is not None:
            return self.memory_mib
        position = self.device.removeprefix("cuda").removeprefix(":")
        gpu = visible_gpu(int(position) if position.isdigit() else 0)
        return gpu.total / MIB if gpu else None


def find_budget(recognizer: Recognizer, batching: Batching) -> Budget:
    """Take the operator's budget, or compute batches of noise to find the best one."""
    if batching.fixed is not None:
        return batching.fixed
    piece = batching.piece_seconds
    available = recognizer.device.free_memory()
    measure = partial(_measure, recognizer)
    # The first batch is slow for reasons of its own.
    measure(1, TYPICAL_SECONDS)
    if available is None:
        return calibrate_throughput(measure, start_budget(None, piece), TYPICAL_SECONDS)
    start = round(batching.start.seconds / batching.start.cost(1, piece))
    return calibrate(measure, start, piece, available)


def try_out(recognizer: Recognizer) -> None:
    """Recognise a canary; raises whatever the model raises."""
    (heard,) = recognizer.recognize(_noise(1, _CANARY_SECONDS))
    if isinstance(heard, RequestError):
        log.info("the canary has no text", extra={"error": heard.message})


def _measure(recognizer: Recognizer, count: int, seconds: float) -> Measurement:
    batch = _noise(count, seconds)
    return recognizer.device.measure(lambda: recognizer.recognize(batch), count, seconds)


def _noise(count: int, seconds: float) -> Sequence[Utterance]:
    samples = np.random.default_rng(0).normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)
    return [Utterance(Clip(samples, SAMPLE_RATE), Options())] * count

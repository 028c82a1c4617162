"""Batches on a GPU that servers share, which is a fake: these tests have none."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

from amela_asr.engine import Recognition
from amela_asr.engines.recognizer import Utterance
from amela_asr.engines.sizing import Batching, find_budget
from amela_common.batching.budget import start_budget
from amela_common.batching.calibration import Measurement
from amela_common.batching.memory_share import MemoryShare

from ..common.batching.fake_device import FakeDevice

GIB = 1 << 30
MIB = 1 << 20
TOTAL = 80 * GIB
MODEL = 5 * GIB
PIECE = 30.0


class FakeSharedGpu:
    """Stands for a GPU of which this process may take a part; more is out of memory."""

    def __init__(self, memory_mib: int | None) -> None:
        self._share = MemoryShare(TOTAL, memory_mib * MIB if memory_mib else 2 * TOTAL)
        self.left = self._share.free(TOTAL - MODEL, MODEL)
        self._batches = FakeDevice(limit=self.left, overhead=1e6)
        self.largest = 0.0

    def free_memory(self) -> float:
        return self.left

    def measure(self, compute: Callable[[], object], count: int, longest: float) -> Measurement:
        compute()
        measured = self._batches.measure(count, longest)
        self.largest = max(self.largest, measured.memory or 0)
        return measured


class FakeRecognizer:
    """A model that hears nothing."""

    def __init__(self, device: FakeSharedGpu) -> None:
        self.device: Any = device

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition]:
        return [Recognition("")] * len(batch)


def batching(memory_mib: int | None, device: str = "cuda:0") -> Batching:
    return Batching(PIECE, 0.01, device, memory_mib=memory_mib)


@pytest.mark.parametrize("memory_mib", [71_000, 36_000, 20_000])
def test_the_memory_that_a_server_may_take_sets_the_batch_to_start_with(memory_mib: int) -> None:
    assert batching(memory_mib).start == start_budget(memory_mib, PIECE)


def test_on_a_cpu_a_gpus_memory_says_nothing() -> None:
    assert batching(71_000, "cpu").start == start_budget(None, PIECE)


def test_what_the_operator_fixes_is_not_measured() -> None:
    fixed = Batching(PIECE, 0.01, "cuda:0", items=3, memory_mib=71_000)
    assert fixed.start.holds(3, PIECE)
    assert not fixed.start.holds(4, PIECE)


@pytest.mark.parametrize("memory_mib", [8_000, 20_000, 40_000, None])
def test_batches_stay_within_a_servers_part_of_the_memory(memory_mib: int | None) -> None:
    device = FakeSharedGpu(memory_mib)
    recognizer: Any = FakeRecognizer(device)
    budget = find_budget(recognizer, batching(memory_mib))
    assert 0 < device.largest <= device.left
    most = FakeDevice().memory(int(budget.seconds / budget.cost(1, PIECE)), PIECE)
    assert 0.4 * device.left < most <= device.left


def test_a_part_that_the_model_fills_leaves_one_clip_at_a_time() -> None:
    recognizer: Any = FakeRecognizer(FakeSharedGpu(5_000))
    assert find_budget(recognizer, batching(5_000)).items == 1

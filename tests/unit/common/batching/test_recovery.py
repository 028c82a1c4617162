"""What becomes of batches that fail, on a device whose memory is a fake."""

import logging
import weakref
from collections.abc import Sequence

import pytest
from amela_common.batching.budget import Budget
from amela_common.batching.metrics import BatchMetrics
from amela_common.batching.recovery import BrokenDeviceError, Recovery, Sized
from amela_common.errors import RequestError
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from .fake_device import LINEAR, FakeDevice

BUDGET = Budget(480.0)


def recovery_on(device: FakeDevice, budget: Budget = BUDGET) -> Recovery[float, float]:
    return Recovery(device.compute, device, budget, BatchMetrics(CollectorRegistry()))


def sized(*lengths: float) -> list[Sized[float]]:
    return [Sized(length, length) for length in lengths]


def reasons(outcomes: Sequence[float | RequestError]) -> list[float | str]:
    return [outcome.reason if isinstance(outcome, RequestError) else outcome for outcome in outcomes]


@given(lengths=st.lists(st.floats(0.1, 40), min_size=1, max_size=40), fits=st.floats(1, 500))
def test_whatever_the_memory_each_item_has_its_own_outcome_in_order(
    lengths: list[float], fits: float
) -> None:
    device = FakeDevice(limit=LINEAR * fits)
    outcomes = recovery_on(device).run(sized(*lengths))

    assert reasons(outcomes) == [
        length if device.memory(1, length) <= device.limit else "OUT_OF_MEMORY" for length in lengths
    ]


def test_a_batch_that_does_not_fit_is_halved_in_order_until_it_does() -> None:
    device = FakeDevice(limit=LINEAR * 25)
    outcomes = recovery_on(device).run(sized(*[10.0 + number / 100 for number in range(8)]))

    assert outcomes == [10.0 + number / 100 for number in range(8)]
    assert [len(batch) for batch in device.batches] == [8, 4, 2, 2, 4, 2, 2]


def test_the_budget_is_lowered_to_what_may_fit_and_stays_there() -> None:
    device = FakeDevice(limit=LINEAR * 25)
    recovery = recovery_on(device)
    recovery.run(sized(*[10.0] * 8))

    assert recovery.budget.holds(2, 10.0)
    assert not recovery.budget.holds(3, 10.0)
    before = recovery.budget
    recovery.run(sized(1.0))
    assert recovery.budget == before


def test_a_batch_that_fitted_is_not_given_up_when_a_larger_one_does_not() -> None:
    device = FakeDevice(limit=LINEAR * 45)
    recovery = recovery_on(device)
    recovery.run(sized(*[10.0] * 4))
    recovery.run(sized(*[10.0] * 5))

    assert recovery.budget.holds(4, 10.0)


def test_a_batch_that_fitted_once_is_given_up_when_memory_has_gone() -> None:
    device = FakeDevice(limit=LINEAR * 45)
    recovery = recovery_on(device)
    recovery.run(sized(*[10.0] * 4))
    device.limit = LINEAR * 25
    recovery.run(sized(*[10.0] * 4))

    assert recovery.budget.holds(2, 10.0)
    assert not recovery.budget.holds(3, 10.0)


def test_every_failure_frees_the_cache_and_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice(limit=LINEAR * 25)
    registry = CollectorRegistry()
    recovery = Recovery(device.compute, device, BUDGET, BatchMetrics(registry))
    with caplog.at_level(logging.WARNING):
        recovery.run(sized(*[10.0] * 4))

    assert device.caches_freed == 1
    assert registry.get_sample_value("amela_out_of_memory_total") == 1
    assert registry.get_sample_value("amela_batch_budget_seconds") == recovery.budget.seconds
    assert [record.message for record in caplog.records] == ["out of memory"]
    assert caplog.records[0].items == 4  # type: ignore[attr-defined]


def test_an_item_that_is_too_big_alone_fails_alone_and_leaves_the_budget_to_others() -> None:
    device = FakeDevice(limit=LINEAR * 25)
    recovery = recovery_on(device, Budget(20.0))
    outcomes = recovery.run(sized(35.0))

    assert reasons(outcomes) == ["OUT_OF_MEMORY"]
    assert "35.0 s" in str(outcomes[0])
    assert recovery.budget == Budget(20.0)


def test_the_memory_of_a_failed_batch_is_free_before_the_next_try() -> None:
    device = FakeDevice(limit=LINEAR * 25)
    when_freed: list[int] = []

    class Held:
        """Stands for a tensor in a frame of the failed computation."""

    alive: list[weakref.ref[Held]] = []

    def compute(lengths: Sequence[float]) -> list[float | RequestError]:
        held = Held()
        alive.append(weakref.ref(held))
        return device.compute(lengths)

    class Watching(FakeDevice):
        def free_cache(self) -> None:
            when_freed.append(sum(reference() is not None for reference in alive))

    recovery: Recovery[float, float] = Recovery(
        compute, Watching(), BUDGET, BatchMetrics(CollectorRegistry())
    )
    recovery.run(sized(10.0, 10.0, 10.0))

    assert when_freed == [0]


def test_a_bad_item_never_touches_its_neighbours() -> None:
    device = FakeDevice()
    device.poison = {3.0, 6.0}
    device.refused = {5.0}
    outcomes = recovery_on(device).run(sized(*map(float, range(1, 9))))

    assert reasons(outcomes) == [1, 2, "INTERNAL", 4, "AUDIO_NOT_FINITE", "INTERNAL", 7, 8]
    assert device.caches_freed == 0


def test_a_fault_is_told_with_its_kind_and_logged_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice()
    device.poison = {1.0}
    (outcome,) = recovery_on(device).run(sized(1.0))

    assert "ZeroDivisionError: a fault of this item" in str(outcome)
    assert "fake_device.py" in caplog.records[0].trace  # type: ignore[attr-defined]


def test_a_lost_device_is_not_tried_again() -> None:
    device = FakeDevice()
    device.lost = True

    with pytest.raises(BrokenDeviceError, match="the bus has lost the device"):
        recovery_on(device).run(sized(1.0, 2.0))
    assert len(device.batches) == 1


def test_a_device_whose_memory_cannot_be_freed_is_lost() -> None:
    device = FakeDevice(limit=LINEAR * 25)
    device.lost_unseen = True

    with pytest.raises(BrokenDeviceError, match="the bus has lost the device"):
        recovery_on(device).run(sized(10.0, 10.0, 10.0))
    assert len(device.batches) == 1


def test_results_that_are_not_one_for_each_item_are_a_fault_of_the_engine() -> None:
    recovery: Recovery[float, float] = Recovery(
        lambda lengths: [], FakeDevice(), BUDGET, BatchMetrics(CollectorRegistry())
    )

    assert reasons(recovery.run(sized(1.0, 2.0))) == ["INTERNAL", "INTERNAL"]

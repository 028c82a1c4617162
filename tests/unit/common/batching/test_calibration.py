"""How large batches become on devices of different sizes, whose memory is a fake."""

import pytest
from amela_common.batching.budget import Budget
from amela_common.batching.calibration import SAFETY, Measurement, calibrate, calibrate_throughput, fit
from hypothesis import given
from hypothesis import strategies as st

from .fake_device import LINEAR, SQUARE, FakeDevice

PIECE = 30.0
GIB = 1 << 30


def test_the_model_of_memory_is_found_from_measurements() -> None:
    device = FakeDevice()
    model = fit([device.measure(4, 30.0), device.measure(4, 7.5), device.measure(8, 30.0)])

    assert model.linear == pytest.approx(LINEAR)
    assert model.quadratic == pytest.approx(SQUARE / LINEAR)


def test_a_model_without_attention_is_linear() -> None:
    model = fit([Measurement(4, 30.0, 120e6, 1.0), Measurement(4, 7.5, 31e6, 1.0)])

    assert model.quadratic == 0
    assert model.seconds(120e6) <= 120.0


def test_memory_that_does_not_grow_sets_no_limit() -> None:
    assert fit([Measurement(4, 30.0, 0.0, 1.0), Measurement(4, 7.5, 0.0, 1.0)]).seconds(1.0) == float("inf")


@given(gib=st.floats(0.05, 200), start=st.sampled_from([4, 8, 16]))
def test_a_calibrated_budget_never_exceeds_the_memory(gib: float, start: int) -> None:
    device = FakeDevice(limit=gib * GIB, overhead=1e9)
    budget = calibrate(device.measure, start, PIECE, available=gib * GIB)
    for length in (1.0, 5.0, 30.0):
        count = int(budget.seconds / budget.cost(1, length))
        if count > 1 and budget.holds(count, length):
            assert device.memory(count, length) <= gib * GIB


def test_a_large_device_gets_larger_batches_while_they_bring_throughput() -> None:
    device = FakeDevice(limit=130 * GIB, speed=1000.0, overhead=1.0)
    budget = calibrate(device.measure, 16, PIECE, available=130 * GIB)

    assert budget.seconds > 1000
    assert device.measure(int(budget.seconds / PIECE), PIECE).throughput > 0.85 * device.speed


def test_batches_do_not_grow_beyond_what_they_bring() -> None:
    device = FakeDevice(limit=130 * GIB, overhead=0.0)
    budget = calibrate(device.measure, 16, PIECE, available=130 * GIB)

    assert budget.holds(16, PIECE)
    assert not budget.holds(17, PIECE)


def test_a_start_that_does_not_fit_is_halved() -> None:
    device = FakeDevice(limit=LINEAR * 4 * PIECE, overhead=1.0)
    budget = calibrate(device.measure, 16, PIECE, available=device.limit)

    assert 1 <= budget.seconds / PIECE <= 4 * SAFETY + 0.5


def test_a_device_too_small_for_one_piece_computes_them_one_by_one() -> None:
    device = FakeDevice(limit=LINEAR * PIECE / 2)

    assert calibrate(device.measure, 4, PIECE, available=device.limit).items == 1


@pytest.mark.parametrize(("overhead", "count"), [(0.0, 1), (0.05, 16), (10.0, 16)])
def test_where_memory_is_no_limit_throughput_alone_decides(overhead: float, count: int) -> None:
    device = FakeDevice(overhead=overhead)
    budget = calibrate_throughput(device.measure, Budget(100.0), typical_seconds=5.0)

    assert budget.holds(count, 5.0)
    assert not budget.holds(count + 1, 5.0)

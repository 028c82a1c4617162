"""Budgets in padded seconds."""

import pytest
from amela_common.batching.budget import Budget, start_budget, start_items
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(1, 500)
lengths = st.floats(0.1, 600)


@pytest.mark.parametrize(
    ("memory_mib", "items"),
    [
        (None, 4),
        (16_384, 4),
        (32_768, 4),
        (35_000, 4),
        (35_001, 8),
        (40_960, 8),
        (70_000, 8),
        (70_001, 16),
        (81_920, 16),
        (143_771, 16),
    ],
)
def test_the_batch_to_start_from_follows_the_labs_table(memory_mib: float | None, items: int) -> None:
    assert start_items(memory_mib) == items
    budget = start_budget(memory_mib, 30.0)
    assert budget.holds(items, 30.0)
    assert not budget.holds(items + 1, 30.0)


def test_long_clips_cost_more_than_their_seconds() -> None:
    budget = Budget(100.0, quadratic=0.01)

    assert budget.cost(2, 10.0) == 22.0
    assert budget.holds(9, 10.0)
    assert not budget.holds(10, 10.0)


def test_a_limit_of_items_holds_however_short_they_are() -> None:
    budget = Budget(float("inf"), items=3)

    assert budget.holds(3, 1e9)
    assert not budget.holds(4, 0.1)


@given(length=lengths, seconds=st.floats(0, 10))
def test_a_clip_alone_is_always_tried(length: float, seconds: float) -> None:
    assert Budget(seconds).holds(1, length)


@given(count=counts, length=lengths, seconds=st.floats(1, 1e5))
def test_a_lowered_budget_holds_the_batch_it_was_lowered_to_and_no_more_than_before(
    count: int, length: float, seconds: float
) -> None:
    before = Budget(seconds)
    after = before.lowered_to(count, length)

    assert after.seconds <= before.seconds
    assert after.holds(count, length) or not before.holds(count, length)
    assert not after.holds(count * 2 + 1, length)

"""Whose turn it is, and who comes along."""

from collections import Counter

import pytest
from amela_common.batching.budget import Budget
from amela_common.batching.fair_queue import MAX_SPREAD, FairQueue
from hypothesis import given
from hypothesis import strategies as st

UNLIMITED = Budget(float("inf"))
ONE = Budget(0.0)

arrivals = st.lists(
    st.tuples(st.floats(0.05, 40), st.sampled_from("abcd"), st.sampled_from(["words", "text"])), max_size=60
)


def queue_of(*entries: tuple[str, float], kind: str = "text", now: float = 0.0) -> FairQueue[str]:
    """Queue items named after their callers."""
    queue: FairQueue[str] = FairQueue()
    for caller, seconds in entries:
        queue.add(caller, seconds=seconds, caller=caller, kind=kind, now=now)
    return queue


def drain(queue: FairQueue[str], budget: Budget) -> list[list[str]]:
    batches = []
    while batch := queue.take(budget):
        batches.append([entry.item for entry in batch])
    return batches


@given(arrivals=arrivals, seconds=st.floats(1, 200), items=st.none() | st.integers(1, 8))
def test_every_item_is_in_one_batch_that_is_within_budget_alike_and_of_one_kind(
    arrivals: list[tuple[float, str, str]], seconds: float, items: int | None
) -> None:
    budget = Budget(seconds, items=items)
    queue: FairQueue[int] = FairQueue()
    for number, (length, caller, kind) in enumerate(arrivals):
        queue.add(number, seconds=length, caller=caller, kind=kind, now=0)
    seen: Counter[int] = Counter()
    while batch := queue.take(budget):
        lengths = [entry.seconds for entry in batch]
        assert budget.holds(len(batch), max(lengths))
        assert max(lengths) <= MAX_SPREAD * max(0.5, min(lengths))
        assert len({entry.kind for entry in batch}) == 1
        seen.update(entry.item for entry in batch)

    assert seen == Counter(range(len(arrivals)))
    assert len(queue) == 0


def test_a_clip_passes_the_backlog_of_a_long_recording() -> None:
    queue = queue_of(*[("recording", 30.0)] * 48)
    queue.take(Budget(130.0))
    queue.add("clip", seconds=2.0, caller="clip", kind="text", now=0)

    assert [entry.item for entry in queue.take(Budget(130.0))] == ["clip"]


def test_callers_get_equal_time_however_much_they_queue() -> None:
    queue = queue_of(*[("greedy", 10.0)] * 20, *[("modest", 10.0)] * 5)
    order = [batch[0] for batch in drain(queue, ONE)]

    assert Counter(order[:10]) == {"greedy": 5, "modest": 5}
    assert order[10:] == ["greedy"] * 15


def test_callers_with_short_items_get_more_of_them() -> None:
    queue = queue_of(*[("long", 20.0)] * 10, *[("short", 5.0)] * 40)
    order = [batch[0] for batch in drain(queue, ONE)]

    assert Counter(order[:25]) == {"long": 5, "short": 20}


def test_a_caller_that_was_idle_does_not_save_up_its_share() -> None:
    queue = queue_of(*[("busy", 10.0)] * 10)
    for _ in range(6):
        queue.take(ONE)
    for _ in range(10):
        queue.add("late", seconds=10.0, caller="late", kind="text", now=0)
    order = [batch[0] for batch in drain(queue, ONE)]

    assert Counter(order[:6]) == {"busy": 3, "late": 3}


def test_the_nearest_in_length_fill_a_batch_up() -> None:
    queue = queue_of(("first", 10.0), ("near", 9.0), ("nearer", 10.5), ("far", 14.0), ("other", 25.0))

    assert [entry.item for entry in queue.take(Budget(33.0))] == ["first", "near", "nearer"]
    assert drain(queue, UNLIMITED) == [["far"], ["other"]]


def test_the_first_item_of_a_backlog_is_in_the_next_batch_also_when_it_is_alone_in_its_length() -> None:
    queue = queue_of(("odd", 40.0), *[("common", 2.0)] * 30)

    assert [entry.item for entry in queue.take(Budget(60.0))] == ["odd"]


def test_a_discarded_item_is_in_no_batch_and_may_be_discarded_again() -> None:
    queue: FairQueue[str] = FairQueue()
    gone = queue.add("gone", seconds=1.0, caller=1, kind=None, now=0)
    queue.add("kept", seconds=1.0, caller=2, kind=None, now=0)
    queue.discard(gone)
    queue.discard(gone)

    assert drain(queue, UNLIMITED) == [["kept"]]


def test_an_empty_queue_is_never_due() -> None:
    queue: FairQueue[str] = FairQueue()

    assert queue.due(UNLIMITED, max_wait=1.0) is None
    assert queue.take(UNLIMITED) == []


@pytest.mark.parametrize(
    ("budget", "due"), [(UNLIMITED, 7.5), (Budget(5.0), 7.0), (Budget(5.0, items=2), 7.0)]
)
def test_a_full_batch_is_due_at_once_and_another_after_the_longest_wait(budget: Budget, due: float) -> None:
    queue = queue_of(("a", 2.0), ("b", 2.0), now=7.0)

    assert queue.due(budget, max_wait=0.5) == due


def test_the_item_that_came_first_decides_when_a_batch_is_due() -> None:
    queue = queue_of(("late", 2.0), now=9.0)
    queue.add("early", seconds=30.0, caller="early", kind="words", now=3.0)

    assert queue.due(UNLIMITED, max_wait=1.0) == 4.0

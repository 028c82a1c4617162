"""Whose turn it is, and who comes along."""

from collections import Counter
from math import ceil

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


class Supply:
    """Callers that always have something in the queue, and what has become of it."""

    def __init__(self) -> None:
        self.queue: FairQueue[str] = FairQueue()
        self.waiting: Counter[str] = Counter()
        self.seconds_served: Counter[str] = Counter()

    def keep(self, item: str, count: int, seconds: float, caller: object = None) -> None:
        """Have so many of an item wait; without a caller, each is a new caller's."""
        while self.waiting[item] < count:
            self.queue.add(item, seconds=seconds, caller=caller or object(), kind=None, now=0)
            self.waiting[item] += 1

    def take(self, budget: Budget) -> list[str]:
        batch = self.queue.take(budget)
        self.waiting.subtract(entry.item for entry in batch)
        for entry in batch:
            self.seconds_served[entry.item] += round(entry.seconds)
        return [entry.item for entry in batch]


@pytest.mark.parametrize("clips", [1, 5, 40])
@pytest.mark.parametrize("cancelled", [0, 50])
def test_a_long_recording_goes_on_however_many_new_callers_keep_coming(clips: int, cancelled: int) -> None:
    supply = Supply()
    for _ in range(500):
        supply.keep("piece", 8, 30.0, caller="recording")
        supply.keep("clip", clips, 4.0)
        for _ in range(cancelled):
            supply.queue.discard(supply.queue.add("gone", seconds=4.0, caller=object(), kind=None, now=0))
        supply.take(Budget(64.0))
    served = supply.seconds_served

    # As new callers are served soon after they come, twice as many share the virtual time as wait.
    assert served["piece"] > 0.4 * served.total() / (clips + 1)
    assert served["clip"] > 0.4 * served.total() * clips / (clips + 1)


@pytest.mark.parametrize("recordings", [1, 5, 20])
def test_a_clip_waits_for_one_piece_of_each_recording_and_one_batch_at_most(recordings: int) -> None:
    supply = Supply()
    in_a_batch = 4
    waited = longest = 0
    for _ in range(1000):
        for number in range(recordings):
            # One recording after the other, of 20 pieces each.
            name = f"recording {number}.{supply.seconds_served[str(number)] // 600}"
            supply.keep(str(number), 8, 30.0, caller=name)
        supply.keep("clip", 1, 2.0)
        waited = 0 if "clip" in supply.take(Budget(130.0, items=in_a_batch)) else waited + 1
        longest = max(longest, waited)

    assert longest <= ceil(recordings / in_a_batch) + 1


def test_a_burst_of_clips_is_in_the_very_next_batches_however_long_a_recording_has_run() -> None:
    supply = Supply()
    for number in range(1, 3000):
        supply.keep("piece", 40, 30.0, caller="recording")
        if number % 20 == 0:
            supply.keep("clip", 100, 4.0)
        batch = supply.take(Budget(64.0))
        # A hundred of them fill six batches and a part of the seventh.
        assert ("clip" in batch) == (number >= 20 and number % 20 < 7)


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

"""Who goes next, and with whom: fair between callers, and alike in length."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from amela_common.batching.budget import Budget

T = TypeVar("T")

# The longest clip of a batch is at most so many times as long as its shortest one: at worst a
# third of such a batch is padding.
MAX_SPREAD = 1.5
# Below this length, in seconds, the work around a clip weighs more than the clip.
_NEGLIGIBLE_SECONDS = 0.5


@dataclass(eq=False, frozen=True)
class Waiting(Generic[T]):
    """An item in the queue.

    Attributes
    ----------
    seconds
        Its length.
    caller
        Whose it is.
    kind
        Items of different kinds never share a batch.
    since
        When it came, by the caller's clock, in seconds.
    turn
        Its place in the order that is fair, in virtual seconds of work.
    """

    item: T
    seconds: float
    caller: Hashable
    kind: Hashable
    since: float
    turn: float = field(compare=False)


class FairQueue(Generic[T]):
    """Items of many callers, who get equal shares of the device however much each of them sends.

    Fair queueing by start times (Greenberg and Madras, 1992): an item's turn comes when its caller's
    earlier items have had theirs, in the virtual time of generalized processor sharing (Parekh and
    Gallager, 1993). In that time a second passes while each caller that has work is given a second of
    it. It passes with all work done, so that no supply of new callers, whose turn is now, keeps later
    turns from coming. The item whose turn it is always goes into the next batch; others fill the batch
    up, those closest in length first.
    """

    def __init__(self) -> None:
        self._waiting: list[Waiting[T]] = []
        self._virtual_time = 0.0
        # Callers that have work in virtual time, and when they will have had it all.
        self._served_until: dict[Hashable, float] = {}
        # Seconds of work in the batch that was taken last: done when the next one is asked for.
        self._under_way = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, *, seconds: float, caller: Hashable, kind: Hashable, now: float) -> Waiting[T]:
        """Queue an item; the answer is what `discard` takes."""
        turn = max(self._virtual_time, self._served_until.get(caller, 0.0))
        self._served_until[caller] = turn + seconds
        entry = Waiting(item, seconds, caller, kind, now, turn)
        self._waiting.append(entry)
        return entry

    def discard(self, entry: Waiting[T]) -> None:
        """Forget an item that nobody waits for any more, if it is still there."""
        if entry in self._waiting:
            self._waiting.remove(entry)
            if entry.caller in self._served_until:
                # Work that nobody does takes no time.
                self._served_until[entry.caller] -= entry.seconds

    def due(self, budget: Budget, max_wait: float) -> float | None:
        """Say when the next batch should start: a time of the caller's clock, or None for an empty queue.

        That is at once when it is full, and else when the item that came first has waited `max_wait` seconds.
        """
        if not self._waiting:
            return None
        oldest = min(entry.since for entry in self._waiting)
        batch = self._choose(budget)
        longest = max(entry.seconds for entry in batch)
        return oldest if not budget.holds(len(batch) + 1, longest) else oldest + max_wait

    def take(self, budget: Budget) -> list[Waiting[T]]:
        """Take the next batch out of the queue, in the order of turns; empty if nothing waits."""
        self._pass_time(self._under_way)
        self._under_way = 0.0
        batch = self._choose(budget)
        if batch:
            chosen = set(batch)
            self._waiting = [entry for entry in self._waiting if entry not in chosen]
            self._virtual_time = max(self._virtual_time, batch[0].turn)
            self._under_way = sum(entry.seconds for entry in batch)
        return batch

    def _choose(self, budget: Budget) -> list[Waiting[T]]:
        if not self._waiting:
            return []
        first = min(self._waiting, key=lambda entry: entry.turn)
        alike = sorted(
            (entry for entry in self._waiting if entry.kind == first.kind),
            key=lambda entry: (entry.seconds, entry.turn),
        )
        low = high = alike.index(first)
        while True:
            # Widen to the side where the length differs less, as long as the batch stays good.
            sides = []
            if low > 0 and _alike(alike[low - 1], alike[high]):
                sides.append((first.seconds - alike[low - 1].seconds, low - 1, high))
            if high + 1 < len(alike) and _alike(alike[low], alike[high + 1]):
                sides.append((alike[high + 1].seconds - first.seconds, low, high + 1))
            fitting = [side for side in sides if budget.holds(side[2] - side[1] + 1, alike[side[2]].seconds)]
            if not fitting:
                break
            _, low, high = min(fitting)
        chosen = set(alike[low : high + 1])
        return sorted(filter(chosen.__contains__, self._waiting), key=lambda entry: entry.turn)

    def _pass_time(self, work: float) -> None:
        """Let so many seconds of work be shared out equally, and forget callers that have had all theirs."""
        ends = sorted(self._served_until.values())
        for had_all, end in enumerate(ends):
            callers = len(ends) - had_all
            step = max(0.0, min(end - self._virtual_time, work / callers))
            self._virtual_time += step
            work -= step * callers
        self._served_until = {
            caller: until for caller, until in self._served_until.items() if until > self._virtual_time
        }


def _alike(shorter: Waiting[T], longer: Waiting[T]) -> bool:
    return longer.seconds <= MAX_SPREAD * max(shorter.seconds, _NEGLIGIBLE_SECONDS)

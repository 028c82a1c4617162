"""Units and how long they last."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def runs(units: Ints) -> tuple[Ints, Ints]:
    """Write int64[n] as its runs of equal units: the unit of each run, and its length."""
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))
    return units[starts], np.diff(np.r_[starts, len(units)])


def expand(units: Ints, durations: Ints, size: int) -> Iterator[Ints]:
    """Repeat each unit as often as its duration says, in pieces of `size`, however long they last."""
    ends = np.cumsum(durations)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, size):
        frames = np.arange(start, min(start + size, total))
        yield units[np.searchsorted(ends, frames, side="right")]


class RunLengths:
    """Writes units that come piece by piece as runs; the last run is held until it has ended."""

    def __init__(self) -> None:
        self._unit = np.empty(0, np.int64)
        self._length = 0

    def push(self, units: Ints) -> tuple[Ints, Ints]:
        """Take more units and give the runs that have ended."""
        joined, lengths = runs(np.r_[self._unit, units])
        if not len(joined):
            return joined, lengths
        if self._length:
            lengths[0] += self._length - 1
        self._unit, self._length = joined[-1:], int(lengths[-1])
        return joined[:-1], lengths[:-1]

    def finish(self) -> tuple[Ints, Ints]:
        """Give the last run."""
        length = np.full(len(self._unit), self._length, np.int64)
        return self._unit, length

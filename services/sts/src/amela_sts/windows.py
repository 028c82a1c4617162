"""Long sequences in overlapping windows whose middles join without a gap.

Both directions use it. Audio to units: an item is a sample, a frame sees ``field`` samples and the next one
begins ``hop`` later. Units to audio: an item is a frame. A window is cut at frames, given some context on
both sides, and only its middle is kept; so there are just as many frames as in one piece, on the same grid.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """A stretch to compute.

    Attributes
    ----------
    items
        What to compute from, context included.
    skip, keep
        Frames of its result to leave out in front, and to keep after them.
    whole
        Whether it is the whole sequence.
    """

    items: NDArray[Any]
    skip: int
    keep: int
    whole: bool


class Windows:
    """Cuts a sequence that comes piece by piece; holds a window of it at most, and what came last.

    A sequence of at most ``middle + 2 × context`` frames makes one window. A longer one is always cut at the
    same places, whatever pieces it comes in: middles are `middle` frames long, counted from its beginning.

    Parameters
    ----------
    middle, context
        In frames.
    hop, field
        In items.
    """

    def __init__(self, middle: int, context: int, *, hop: int = 1, field: int = 1) -> None:
        self._middle = middle
        self._context = context
        self._hop = hop
        self._field = field
        self._held: list[NDArray[Any]] = []
        self._held_items = 0
        self._held_from = 0  # frame
        self._next = 0  # frame that the next middle begins with

    def push(self, items: NDArray[Any]) -> Iterator[Window]:
        """Take more items and give the windows that are complete with them."""
        self._held.append(items)
        self._held_items += len(items)
        longest = self._middle + 2 * self._context
        while True:
            available = self._held_from + self._frames(self._held_items)
            # Also the first window waits until the sequence is known to be a long one.
            if available <= max(longest, self._next + self._middle + self._context):
                return
            yield self._cut(self._next + self._middle, available)

    def finish(self) -> Iterator[Window]:
        """Give the windows that are left."""
        total = self._held_from + self._frames(self._held_items)
        if total <= self._middle + 2 * self._context and self._next == 0:
            if total:
                yield Window(self._joined(), 0, total, whole=True)
            return
        while self._next < total:
            yield self._cut(min(self._next + self._middle, total), total)

    def _frames(self, items: int) -> int:
        return (items - self._field) // self._hop + 1 if items >= self._field else 0

    def _cut(self, end: int, available: int) -> Window:
        first = max(0, self._next - self._context)
        last = min(available, end + self._context)
        held = self._joined()[(first - self._held_from) * self._hop :]
        self._held, self._held_items, self._held_from = [held], len(held), first
        window = Window(
            held[: (last - first - 1) * self._hop + self._field],
            skip=self._next - first,
            keep=end - self._next,
            whole=False,
        )
        self._next = end
        return window

    def _joined(self) -> NDArray[Any]:
        joined = np.concatenate(self._held) if len(self._held) != 1 else self._held[0]
        self._held = [joined]
        return joined

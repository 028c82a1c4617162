"""Finds keys that come again in a stream of millions, in a few bytes for each."""

from array import array
from collections.abc import Hashable

_SHARDS = 256
_FIRST_CAPACITY = 16
_FILL = 0.75


class FirstLines:
    """Remembers on which line each key came first.

    Keys are told apart by 64 bits of their hash: ten million distinct keys hold a false duplicate with a
    probability of 3 in a million. They take 12 bytes each in open-addressing tables at most three quarters
    full: ten million need about 200 MB. There are 256 tables, so that growing one never doubles the whole.
    """

    def __init__(self) -> None:
        self._shards = [_Table() for _ in range(_SHARDS)]

    def note(self, key: Hashable, line: int) -> int | None:
        """Return the line, from 1, on which `key` came before; None if this `line` is the first."""
        digest = hash(key) & 0xFFFF_FFFF_FFFF_FFFF
        return self._shards[digest % _SHARDS].note(digest, line)


class _Table:
    __slots__ = ("_digests", "_lines", "_used")

    def __init__(self, capacity: int = _FIRST_CAPACITY) -> None:
        self._digests = array("Q", bytes(8 * capacity))
        self._lines = array("I", bytes(4 * capacity))
        self._used = 0

    def note(self, digest: int, line: int) -> int | None:
        digests, lines = self._digests, self._lines
        mask = len(digests) - 1
        # The low bits chose the table.
        place = (digest >> 8) & mask
        # No line is 0: that marks a free place.
        while first := lines[place]:
            if digests[place] == digest:
                return first
            place = (place + 1) & mask
        digests[place] = digest
        lines[place] = line
        self._used += 1
        if self._used > _FILL * len(digests):
            self._grow()
        return None

    def _grow(self) -> None:
        larger = _Table(2 * len(self._digests))
        for digest, line in zip(self._digests, self._lines, strict=True):
            if line:
                larger.note(digest, line)
        self._digests, self._lines = larger._digests, larger._lines

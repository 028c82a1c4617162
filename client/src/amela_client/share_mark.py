"""Which entry of a whole manifest a line of a share is: the line says so in a field of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

FIELD = "amela_share"


@dataclass(frozen=True, slots=True)
class Mark:
    """An entry's place in the manifest that was shared out.

    Attributes
    ----------
    index, line
        As in `Entry`, of that manifest.
    total
        How many entries it has.
    duplicate
        For an entry that repeats another one, which may be in another share: the words that say so.
    """

    index: int
    total: int
    line: int
    duplicate: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Self | None:
        """Read the mark of a line; None if it has none.

        Raises
        ------
        ValueError
            It has one that no split wrote.
        """
        match fields.get(FIELD):
            case None:
                return None
            case [int(index), int(total), int(line)] if 0 <= index < total:
                return cls(index, total, line)
            case [int(index), int(total), int(line), str(duplicate)] if 0 <= index < total:
                return cls(index, total, line, duplicate)
            case other:
                raise ValueError(f"{FIELD} is {other!r:.60}, which no split wrote")

    @property
    def fields(self) -> dict[str, object]:
        """What the line gains."""
        repeats = [self.duplicate] if self.duplicate else []
        return {FIELD: [self.index, self.total, self.line, *repeats]}

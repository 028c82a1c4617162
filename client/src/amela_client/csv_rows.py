"""Manifests that are CSV: the rows of a file with a header, as dictionaries."""

import csv
from collections.abc import Iterable, Iterator

from amela_client.entries import EntryProblem, FaultReason, Record, decoded
from amela_client.errors import ManifestError
from amela_client.jsonline import dumps
from amela_client.lines import Line

_TIMES = {"duration": FaultReason.BAD_DURATION, "offset": FaultReason.BAD_OFFSET}


def read_rows(lines: Iterable[Line], name: str) -> Iterator[Record]:
    """Yield the rows after the header; blank ones are passed over.

    Cells are strings, but for ``duration`` and ``offset``: numbers, or None where the cell is empty.

    Raises
    ------
    ManifestError
        The header of the file called `name` cannot be used.
    """
    source = _Source(lines)
    reader = csv.reader(source, strict=True, skipinitialspace=True)
    try:
        header = next((cells for cells in reader if cells), [])
    except (csv.Error, EntryProblem) as error:
        raise ManifestError(f"{name}: the header cannot be read: {error}") from None
    _check_header(header, name)
    while True:
        source.begin_row()
        try:
            cells = next(reader)
            if cells:
                fields = _fields(header, cells)
                yield Record(source.row(), fields, dumps(fields))
        except StopIteration:
            return
        except csv.Error as error:
            message = f"not CSV: {error}; the row reaches from here to line {source.last}"
            yield Record(source.row(), EntryProblem(FaultReason.BAD_ROW, message), None)
        except EntryProblem as problem:
            yield Record(source.row(), problem, None)


class _Source:
    """Feeds lines to the reader of CSV and remembers which of them make the row at hand."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._row: list[Line] = []

    def begin_row(self) -> None:
        self._row.clear()

    @property
    def last(self) -> int:
        return self._row[-1].number

    def row(self) -> Line:
        """Return the lines of the row as one."""
        first, last = self._row[0], self._row[-1]
        raw = b"\n".join(line.raw for line in self._row)
        return first._replace(raw=raw, span=(first.span[0], last.span[1]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._row.append(line)
        return decoded(line) + "\n"


def _check_header(header: list[str], name: str) -> None:
    if "audio_filepath" not in header:
        columns = ", ".join(header) or "none"
        raise ManifestError(
            f"{name}: the first row must name the columns, separated by commas, audio_filepath among them; "
            f"it has {columns:.200}"
        )
    if repeated := {column for column in header if header.count(column) > 1}:
        raise ManifestError(f"{name}: the header names {', '.join(sorted(repeated))} more than once")


def _fields(header: list[str], cells: list[str]) -> dict[str, object]:
    if len(cells) != len(header):
        raise EntryProblem(
            FaultReason.BAD_ROW,
            f"the row has {len(cells)} cells; the header has {len(header)}",
        )
    fields: dict[str, object] = dict(zip(header, cells, strict=True))
    for column, reason in _TIMES.items():
        cell = fields.get(column)
        if isinstance(cell, str):
            try:
                fields[column] = float(cell) if cell.strip() else None
            except ValueError:
                raise EntryProblem(
                    reason, f"{column} is {cell[:60]!r}; a number of seconds is needed"
                ) from None
    return fields

"""A file's physical lines, in bounded memory however long one of them is."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 32 << 20
"""Longest line that is kept whole: the units of a 16-hour recording take about half of it."""

_KEPT_OF_LONG_LINES = 1 << 10
_SKIP_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    r"""A line without its end.

    Attributes
    ----------
    number
        Counted from 1, blank lines included.
    raw
        Its bytes without ``\n``, ``\r\n`` and byte order mark; only the first 1,024 when it is too long.
    span
        Where it stands in the file: first byte, and the byte after its last, line end included.
    too_long
        Whether it is longer than `MAX_LINE_BYTES`.
    crlf
        Whether it ended in ``\r\n``.
    bom
        Whether it began with a byte order mark.
    """

    number: int
    raw: bytes
    span: tuple[int, int]
    too_long: bool
    crlf: bool
    bom: bool


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a file that was opened in binary mode and stands at its start."""
    number = 0
    start = 0
    while raw := file.readline(MAX_LINE_BYTES):
        number += 1
        stop = start + len(raw)
        too_long = len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n")
        if too_long:
            raw = raw[:_KEPT_OF_LONG_LINES]
            stop += _skip_line(file)
        if bom := raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
        raw = raw.removesuffix(b"\n")
        if crlf := raw.endswith(b"\r"):
            raw = raw[:-1]
        yield Line(number, raw, (start, stop), too_long, crlf, bom)
        start = stop


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while part := file.readline(_SKIP_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped

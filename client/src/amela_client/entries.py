"""What one manifest line says: an entry to work on, or the fault that keeps it from being one."""

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from amela_client.jsonline import dumps
from amela_client.lines import MAX_LINE_BYTES, Line
from amela_client.share_mark import FIELD

MAX_SECONDS = 366 * 24 * 3600.0
"""Longest duration and offset that can be meant, in seconds: a year."""

_MAX_PATH_BYTES = 4095
_MAX_NESTING = 200
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NEITHER_QUOTES_NOR_BRACKETS = bytes({*range(256)} - {ord('"'), *_STEPS})
_DECODER = json.JSONDecoder()


class FaultReason(StrEnum):
    """Why a line is no entry."""

    NOT_UTF8 = "NOT_UTF8"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    BAD_JSON = "BAD_JSON"
    TOO_DEEP = "TOO_DEEP"
    NUMBER_TOO_LONG = "NUMBER_TOO_LONG"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    BAD_ROW = "BAD_ROW"
    MISSING_AUDIO_FILEPATH = "MISSING_AUDIO_FILEPATH"
    EMPTY_AUDIO_FILEPATH = "EMPTY_AUDIO_FILEPATH"
    BAD_PATH = "BAD_PATH"
    RELATIVE_PATH = "RELATIVE_PATH"
    WRONG_TYPE = "WRONG_TYPE"
    BAD_DURATION = "BAD_DURATION"
    BAD_OFFSET = "BAD_OFFSET"
    BAD_UNITS = "BAD_UNITS"
    DUPLICATE = "DUPLICATE"


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording, or a stretch of one.

    Attributes
    ----------
    index
        Place among the manifest's lines that are not blank, from 0.
    line
        Line in the file, from 1.
    audio_filepath
        Absolute path.
    duration
        Length in seconds, if the manifest says it. Without an offset it is only a note.
    offset
        Where the stretch ``[offset, offset + duration]`` starts, in seconds; up to the end of the recording
        without a duration. None: the whole recording is meant.
    fields
        Every field as read.
    raw
        The line's JSON text; for CSV, the row's fields as JSON.
    relative
        Whether the manifest gives the path relative to its own folder.
    """

    index: int
    line: int
    audio_filepath: str
    duration: float | None
    offset: float | None
    fields: Mapping[str, object]
    raw: str
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no entry.

    Attributes
    ----------
    index, line
        As in `Entry`.
    reason
        A `FaultReason`.
    message
        What is wrong, with which value, and what to do.
    raw
        The line's bytes; only the first 1,024 of one that is too long.
    span
        Where the line stands in the file, in bytes.
    audio_filepath
        Absolute path, if the line has one.
    text
        Its fields as JSON; None where they cannot be read.
    """

    index: int
    line: int
    reason: FaultReason
    message: str
    raw: bytes
    span: tuple[int, int]
    audio_filepath: str | None = None
    text: str | None = None


class EntryProblem(Exception):  # noqa: N818
    """Says why a line is no entry, to whoever makes the `Fault`."""

    def __init__(self, reason: FaultReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Record(NamedTuple):
    """What stands on a line, before it is known whether it is an entry.

    Attributes
    ----------
    line
        The line, or the lines of a CSV row as one.
    fields
        Its fields, or why they cannot be read.
    text
        The fields as JSON; None where they cannot be read.
    """

    line: Line
    fields: dict[str, object] | EntryProblem
    text: str | None


def read_objects(lines: Iterable[Line]) -> Iterator[Record]:
    """Yield the JSON objects on lines; blank lines are passed over."""
    for line in lines:
        if line.raw and not line.raw.isspace():
            try:
                yield Record(line, *_read_object(line))
            except EntryProblem as problem:
                yield Record(line, problem, None)


def _read_object(line: Line) -> tuple[dict[str, object], str]:
    text = decoded(line).strip()
    # How deep Python itself reads depends on who calls it, and a line must be the same in every reading.
    if line.raw.count(b"[") + line.raw.count(b"{") > _MAX_NESTING and _is_too_deep(line.raw):
        raise EntryProblem(
            FaultReason.TOO_DEEP, f"brackets are nested deeper than the {_MAX_NESTING} levels that are read"
        )
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise EntryProblem(FaultReason.BAD_JSON, f"not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise EntryProblem(FaultReason.TOO_DEEP, "brackets are nested deeper than can be read") from None
    except ValueError:
        # The one other complaint of the decoder: Python refuses to convert very long integers.
        raise EntryProblem(
            FaultReason.NUMBER_TOO_LONG, "an integer has more digits than can be read"
        ) from None
    if not isinstance(value, dict):
        raise EntryProblem(
            FaultReason.NOT_AN_OBJECT,
            f'the line is {_shown(value)}, not an object like {{"audio_filepath": "/corpus/a.wav"}}',
        )
    return value, text


def _is_too_deep(raw: bytes) -> bool:
    """Tell whether the brackets of JSON are nested too deep; those in strings do not count."""
    signs = _ESCAPE.sub(b"", raw).translate(None, _NEITHER_QUOTES_NOR_BRACKETS)
    # Two quotes side by side change nothing for what comes after them. Most strings are gone with them.
    outside_strings = b"".join(signs.replace(b'""', b"").split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside_strings)), default=0) > _MAX_NESTING


def decoded(line: Line) -> str:
    """Return a line as text.

    Raises
    ------
    EntryProblem
        It is too long, or not UTF-8.
    """
    if line.too_long:
        raise EntryProblem(
            FaultReason.LINE_TOO_LONG,
            f"the line has {line.span[1] - line.span[0]:,} bytes; at most {MAX_LINE_BYTES:,} are read",
        )
    try:
        return line.raw.decode()
    except UnicodeDecodeError as error:
        raise EntryProblem(
            FaultReason.NOT_UTF8,
            f"byte {error.start + 1} of the line is 0x{line.raw[error.start]:02x}, which is not UTF-8; "
            "if the manifest is Latin-1, iconv -f LATIN1 -t UTF-8 converts it",
        ) from None


def absolute_path(fields: Mapping[str, object], folder: str) -> tuple[str, bool]:
    """Return ``audio_filepath`` as an absolute path, and whether it was relative to `folder`.

    Raises
    ------
    EntryProblem
        There is none, or it cannot be a path.
    """
    if "audio_filepath" not in fields:
        names = ", ".join(name for name in fields if name != FIELD)
        shown = f"only {ascii(names[:60])[1:-1]}" if names else "it has no field"
        raise EntryProblem(FaultReason.MISSING_AUDIO_FILEPATH, f"there is no audio_filepath, {shown}")
    path = fields["audio_filepath"]
    if not isinstance(path, str):
        raise EntryProblem(
            FaultReason.WRONG_TYPE, f"audio_filepath is {_shown(path)}; a path in quotes is needed"
        )
    if not path.strip():
        raise EntryProblem(FaultReason.EMPTY_AUDIO_FILEPATH, "audio_filepath is empty")
    relative = not path.startswith("/")
    absolute = f"{folder.rstrip('/')}/{path}" if relative else path
    try:
        size = len(absolute.encode())
    except UnicodeEncodeError:
        raise EntryProblem(
            FaultReason.BAD_PATH,
            f"audio_filepath {path!a} is not valid Unicode; rename the file so that its name is UTF-8",
        ) from None
    if "\0" in path:
        raise EntryProblem(FaultReason.BAD_PATH, f"audio_filepath {reprlib.repr(path)} holds a NUL character")
    if size > _MAX_PATH_BYTES:
        raise EntryProblem(
            FaultReason.BAD_PATH, f"audio_filepath has {size:,} bytes; a path has {_MAX_PATH_BYTES:,} at most"
        )
    return absolute, relative


def stretch(fields: Mapping[str, object]) -> tuple[float | None, float | None]:
    """Return ``offset`` and ``duration`` in seconds, None where they are absent or null.

    Raises
    ------
    EntryProblem
        One of them is no time, or they ask for nothing.
    """
    offset = _seconds(fields, "offset", FaultReason.BAD_OFFSET)
    duration = _seconds(fields, "duration", FaultReason.BAD_DURATION)
    if offset is not None and duration == 0:
        raise EntryProblem(
            FaultReason.BAD_DURATION, f"duration is 0, so that nothing is left from offset {offset:g} s on"
        )
    return offset, duration


def _seconds(fields: Mapping[str, object], name: str, reason: FaultReason) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise EntryProblem(
            FaultReason.WRONG_TYPE, f"{name} is {_shown(value)}; a number of seconds without quotes is needed"
        )
    if not 0 <= value <= MAX_SECONDS:
        raise EntryProblem(
            reason, f"{name} is {_shown(value)}; a number of seconds from 0 to {MAX_SECONDS:.0f} is needed"
        )
    return float(value)


def _shown(value: object) -> str:
    """Return a value as its reader wrote it, cut short."""
    text = dumps(value) if not isinstance(value, dict | list) else reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"

"""Manifests: files with one recording on each line, read as a stream, any number of times."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from amela_client.csv_rows import read_rows
from amela_client.duplicates import FirstLines
from amela_client.entries import (
    Entry,
    EntryProblem,
    Fault,
    FaultReason,
    Record,
    absolute_path,
    read_objects,
    stretch,
)
from amela_client.errors import ManifestError
from amela_client.lines import Line, read_lines
from amela_client.manifest_format import refuse_other_formats
from amela_client.share_mark import FIELD, Mark

__all__ = ["Entry", "Fault", "FaultReason", "Manifest"]

_START_AGAIN = "put it back as it was and start again: what is done is kept"


class Manifest:
    """A manifest on disk: JSON Lines, or CSV with a header if its name ends in ``.csv``.

    Iterating reads the file from its start and yields an `Entry` or a `Fault` for each line that is not
    blank, in order. Memory stays bounded: ten million entries need about 200 MB, for finding duplicates.

    ::

        for item in Manifest("data.json"):
            match item:
                case Entry():
                    print(item.audio_filepath)
                case Fault():
                    print(f"line {item.line}: {item.message}")

    Parameters
    ----------
    path
        The file. It must not change while it is in use.
    strict
        Whether relative paths are faults. Otherwise they start at the manifest's folder, with a warning.

    Raises
    ------
    ManifestError
        The file as a whole cannot be used: from the constructor, and from iterating where it has no
        entry, has vanished or has changed since the constructor looked at it.
    """

    def __init__(self, path: str | os.PathLike[str], *, strict: bool = False) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
        self.strict = strict
        self._folder = str(self.path.parent)
        self._notes = _Notes()
        self._digest: str | None = None
        self._version: tuple[int, ...] | None = None
        with self._open() as file:
            refuse_other_formats(file, self.path)
            if self.is_csv:
                file.seek(0)
                next(read_rows(read_lines(file), str(self.path)), None)

    @property
    def is_csv(self) -> bool:
        """Whether the file is CSV."""
        return self.path.suffix.lower() == ".csv"

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the file's bytes."""
        if self._digest is None:
            with self._open() as file:
                self._digest = digest_of(file)
        return self._digest

    def mark(self, item: Entry | Fault) -> Mapping[str, object]:
        """Return the field that says where an entry of a share belongs; nothing for other entries."""
        fields = item.fields if isinstance(item, Entry) else json.loads(item.text or "{}")
        return {FIELD: fields[FIELD]} if FIELD in fields else {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last iteration found odd but could use."""
        return self._notes.sentences(self._folder)

    def __iter__(self) -> Iterator[Entry | Fault]:
        notes = self._notes = _Notes()
        seen = FirstLines()
        index = -1
        with self._open() as file:
            lines = notes.of_lines(read_lines(file))
            records = read_rows(lines, str(self.path)) if self.is_csv else read_objects(lines)
            for index, record in enumerate(records):
                item = self._item(index, record, seen)
                if isinstance(item, Entry) and item.relative:
                    notes.relative.add(item.line)
                yield item
        if index < 0:
            raise ManifestError(f"{self.path} has no entries: a manifest has one on each line")

    def _item(self, index: int, record: Record, seen: FirstLines) -> Entry | Fault:
        line = record.line
        path = None
        try:
            if isinstance(record.fields, EntryProblem):
                raise record.fields
            path, relative = absolute_path(record.fields, self._folder)
            if relative and self.strict:
                given = record.fields["audio_filepath"]
                raise EntryProblem(
                    FaultReason.RELATIVE_PATH,
                    f"audio_filepath {given!r} is relative; an absolute path is needed",
                )
            offset, duration = stretch(record.fields)
            if elsewhere := _repeats(record.fields):
                raise EntryProblem(FaultReason.DUPLICATE, elsewhere)
            # Without an offset the whole recording is meant, whatever the duration says.
            first = seen.note((_cleaned(path), offset, None if offset is None else duration), line.number)
            if first is not None:
                raise EntryProblem(
                    FaultReason.DUPLICATE, f"the same recording and stretch as on line {first}; remove one"
                )
        except EntryProblem as problem:
            return Fault(
                index,
                line.number,
                problem.reason,
                problem.message,
                line.raw,
                line.span,
                path,
                record.text,
            )
        assert record.text is not None
        return Entry(index, line.number, path, duration, offset, record.fields, record.text, relative)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            _refuse_special_files(self.path)
            with self.path.open("rb") as file:
                self._check_version(file, "in use")
                yield file
                self._check_version(file, "read")
        except FileNotFoundError:
            if self._version is None:
                raise ManifestError(f"there is no manifest {self.path}") from None
            raise ManifestError(f"{self.path} has vanished while it was in use; {_START_AGAIN}") from None
        except OSError as error:
            raise ManifestError(f"{self.path} cannot be read: {error.strerror}") from None

    def _check_version(self, file: BinaryIO, use: str) -> None:
        version = _version(file)
        if self._version not in (None, version):
            # A file that was touched, or written again as it was, is still the same manifest.
            file.seek(0)
            if self._digest is None or digest_of(file) != self._digest:
                raise ManifestError(f"{self.path} was changed while it was {use}; {_START_AGAIN}")
            file.seek(0)
        self._version = version


def _refuse_special_files(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ManifestError(
            f"{path} is a folder; `amela-client manifest build {path} -o data.json` makes a manifest of it"
        )
    if not stat.S_ISREG(mode):
        raise ManifestError(
            f"{path} is a pipe or a device, and a manifest is read more than once; write it to a file first"
        )


def _version(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def digest_of(file: BinaryIO) -> str:
    """Return 16 hexadecimal digits over what is left to read of a file."""
    digest = hashlib.blake2b(digest_size=8)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _repeats(fields: Mapping[str, object]) -> str | None:
    """Return what the split wrote of an entry that repeats another one, which may be in another share."""
    try:
        mark = Mark.of(fields)
    except ValueError:
        return None
    return mark.duplicate if mark else None


def _cleaned(path: str) -> str:
    # `..` stays: where it leads depends on links.
    return str(PurePosixPath("/" + path.lstrip("/"))) if "//" in path or "/./" in path else path


@dataclass(slots=True)
class _Tally:
    count: int = 0
    first: int = 0

    def add(self, line: int) -> None:
        self.first = self.first or line
        self.count += 1


class _Notes:
    """What one reading found odd but could use."""

    def __init__(self) -> None:
        self.relative = _Tally()
        self._bom = _Tally()
        self._crlf = _Tally()

    def of_lines(self, lines: Iterable[Line]) -> Iterator[Line]:
        for line in lines:
            if line.bom:
                self._bom.add(line.number)
            if line.crlf:
                self._crlf.add(line.number)
            yield line

    def sentences(self, folder: str) -> tuple[str, ...]:
        told = (
            (self.relative, f"relative paths are taken against the manifest's folder, {folder}"),
            (self._bom, "byte order marks are passed over"),
            (self._crlf, "carriage returns at line ends are passed over"),
        )
        return tuple(
            f"{sentence} (line {tally.first}{f' and {tally.count - 1:,} more' if tally.count > 1 else ''})"
            for tally, sentence in told
            if tally.count
        )

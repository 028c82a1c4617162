"""The append-only record of a run, from which it goes on after it was stopped."""

import errno
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from amela_client.append_log import AppendLog
from amela_client.atomic_file import sync_folder
from amela_client.errors import JournalError
from amela_client.journal_file import open_locked
from amela_client.journal_records import (
    FORMAT,
    Failure,
    Outcome,
    RunKey,
    failure_line,
    header_line,
    is_merged_line,
    is_torn_header,
    merged_line,
    parse_header,
    parse_record,
    result_line,
)

__all__ = ["Failure", "Journal", "Outcome", "RunKey"]

_READ_BYTES = 4096
_MAX_HEADER_BYTES = 1 << 20


class Journal:
    """Results and failures of a run's entries, by the entries' indices.

    `record` costs a few microseconds: a thread writes and fsyncs what has come, once in each interval. In
    memory an entry takes 8 bytes. Made by `open`; as a context manager it closes itself.

    Attributes
    ----------
    path
        The file.
    key
        What run this is.
    moved_from
        Folder that the manifest was in when the run began, if it is in another one now. The entries with a
        relative path are other recordings then.
    resumed
        How many records it had when it was opened.
    """

    def __init__(self, descriptor: int, path: Path, key: RunKey, *, restart: bool, interval: float) -> None:
        self.path = path
        self.key = key
        self.moved_from: str | None = None
        self._descriptor = descriptor
        self._warnings: list[str] = []
        # Where each entry's line starts; negative for a failure; 0, the header's place, for none.
        self._places = array("q")
        self._recorded = 0
        self._failed = 0
        self._closed = False
        end = self._resume(key, restart=restart)
        self.resumed = self._recorded
        self._log = AppendLog(descriptor, end, path, interval=interval)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], key: RunKey, *, restart: bool = False, interval: float = 1.0
    ) -> Self:
        """Start the journal of a run, or go on with it.

        A last line that was torn is dropped, and so are failures that another try may mend. What is left of a
        run whose results are in the manifest already (`note_merged`) is dropped too.

        Parameters
        ----------
        path
            The file; made if it does not exist.
        key
            What run this is.
        restart
            Whether to drop what is in the file, whatever run that comes from.
        interval
            Seconds between two fsyncs.

        Raises
        ------
        JournalError
            It is the journal of a run with another key, is in use, is no journal, or cannot be written.
        """
        path = Path(path).absolute()
        try:
            descriptor, locked = open_locked(path)
            try:
                journal = cls(descriptor, path, key, restart=restart, interval=interval)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise JournalError(f"{path} cannot be used as the journal: {error.strerror}") from None
        if not locked:
            journal._warnings.append(
                f"there are no locks where {path} is: make sure that no other client works on this run"
            )
        return journal

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd when it was opened."""
        return tuple(self._warnings)

    @property
    def failed(self) -> int:
        """Number of entries whose record is a failure."""
        return self._failed

    def __len__(self) -> int:
        return self._recorded

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and 0 <= index < len(self._places) and self._places[index] != 0

    def record(self, index: int, result: Mapping[str, object]) -> None:
        """Record an entry's result: the fields that its line will get.

        Raises
        ------
        JournalError
            Earlier records could not be written: the disk is full, say.
        ValueError
            The entry is recorded already.
        """
        self._append(index, result_line(index, result), failed=False)

    def record_failure(self, index: int, reason: str, message: str, *, transient: bool) -> None:
        """Record that an entry got no result; raises as `record` does.

        A transient failure holds for this run only: the next one tries again.
        """
        self._append(index, failure_line(index, Failure(reason, message, transient)), failed=True)

    def read(self, index: int) -> Outcome | None:
        """Return an entry's result or failure, or None.

        Raises
        ------
        JournalError
            The file can no longer be read, or another program has changed it.
        """
        if index not in self:
            return None
        place = abs(self._places[index])
        self._log.flush(up_to=place)
        try:
            record = parse_record(self._read_line(place))
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}") from None
        if record is None or record[0] != index:
            raise JournalError(f"{self.path} was changed by another program at byte {place}")
        return record[1]

    def note_merged(self, manifest: str) -> None:
        """Record which digest the manifest will have when the results are in it; raises as `record` does.

        A client that is killed after that leaves a journal that nobody needs, and the next one can tell.
        """
        self._log.append(merged_line(manifest))
        self.flush()

    def flush(self) -> None:
        """Return when every record is on the disk."""
        self._log.flush()

    def close(self) -> None:
        """Force every record to the disk and let go of the file.

        Raises
        ------
        JournalError
            Some cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._log.close()
        finally:
            os.close(self._descriptor)

    def discard(self) -> None:
        """Close the journal of a run that is complete, and delete it."""
        # While the lock is held, so that it cannot be the next client's journal that goes.
        self.path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, index: int, line: bytes, *, failed: bool) -> None:
        if index in self:
            raise ValueError(f"entry {index} is recorded already")
        place = self._log.append(line)
        self._place(index, -place if failed else place)

    def _place(self, index: int, place: int) -> None:
        missing = index + 1 - len(self._places)
        if missing > 0:
            self._places.frombytes(bytes(8 * max(missing, len(self._places) // 4)))
        before = self._places[index]
        self._recorded += (place != 0) - (before != 0)
        self._failed += (place < 0) - (before < 0)
        self._places[index] = place

    def _read_line(self, place: int) -> bytes:
        parts = []
        while part := os.pread(self._descriptor, _READ_BYTES, place):
            line, newline, _ = part.partition(b"\n")
            parts.append(line)
            if newline:
                break
            place += len(part)
        return b"".join(parts)

    def _resume(self, key: RunKey, *, restart: bool) -> int:
        """Read what is there, cut a torn line off, and return the size that is left."""
        damaged = 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            header = file.readline(_MAX_HEADER_BYTES)
            if not header.endswith(b"\n"):
                return self._start(key, torn=header)
            before = self._parsed(header)
            if restart or self._is_merged(key.manifest):
                return self._start(key)
            self._refuse_another_run(*before, key)
            end = len(header)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                record = parse_record(line)
                if record is None:
                    damaged += not is_merged_line(line)
                else:
                    self._place(record[0], _place_on_resume(end, record[1]))
                end += len(line)
        if self.moved_from and not self._recorded:
            # There is nothing that could be of another folder's recordings.
            self.moved_from = None
            return self._start(key)
        os.ftruncate(self._descriptor, end)
        if damaged:
            self._warnings.append(f"{self.path} has {damaged} damaged lines; their entries are done again")
        return end

    def _start(self, key: RunKey, *, torn: bytes = b"") -> int:
        if not is_torn_header(torn):
            raise self._no_journal()
        header = header_line(key)
        os.ftruncate(self._descriptor, 0)
        if os.write(self._descriptor, header) < len(header):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)
        sync_folder(self.path.parent)
        return len(header)

    def _parsed(self, header: bytes) -> tuple[object, RunKey | None]:
        try:
            return parse_header(header)
        except (ValueError, RecursionError):
            raise self._no_journal() from None

    def _is_merged(self, manifest: str) -> bool:
        """Return whether the last line says that the manifest, as it is now, has the results in it."""
        line = merged_line(manifest)
        size = os.fstat(self._descriptor).st_size
        return size > len(line) and os.pread(self._descriptor, len(line), size - len(line)) == line

    def _refuse_another_run(self, version: object, before: RunKey | None, key: RunKey) -> None:
        if before is None:
            raise JournalError(
                f"{self.path} was written by another version of the client (format {version}, not {FORMAT}); "
                "finish the run with that version, or delete the file to start over (--restart)"
            )
        if differences := before.differences(key):
            raise JournalError(
                f"{self.path} belongs to another run: {'; '.join(differences)}. To go on with that run, give "
                "its command again as it was; to start over, delete the file (--restart)"
            )
        if before.folder and key.folder and not _is_same_folder(before.folder, key.folder):
            self.moved_from = before.folder

    def _no_journal(self) -> JournalError:
        return JournalError(f"{self.path} is not a journal; move it away or choose another output")


def _is_same_folder(before: str, now: str) -> bool:
    try:
        return before == now or Path(before).samefile(now)
    except OSError:
        return False


def _place_on_resume(place: int, outcome: Outcome) -> int:
    if isinstance(outcome, Failure):
        return 0 if outcome.transient else -place
    return place

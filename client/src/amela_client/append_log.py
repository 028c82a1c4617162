"""Appends lines to a file without ever making the caller wait for the disk."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from amela_client.errors import JournalError

_MAX_WAITING_BYTES = 16 << 20
_CURABLE = (errno.ENOSPC, errno.EDQUOT)


class AppendLog:
    """A file that grows at its end: lines are kept in memory until a thread writes and fsyncs them.

    Parameters
    ----------
    descriptor
        Of the file, open for appending. It stays the caller's.
    end
        Size of the file, in bytes.
    path
        Name of the file, for messages.
    interval
        Seconds between two visits of the thread: what a power cut can cost.
    """

    def __init__(self, descriptor: int, end: int, path: Path, *, interval: float) -> None:
        self._descriptor = descriptor
        self._path = path
        self._interval = interval
        self._end = end
        self._on_disk = end
        self._unsynced = 0  # bytes after those that are in the file, of what waits
        self._waiting: list[bytes] = []
        self._error: OSError | None = None
        self._appending = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_flushing, name=f"flush {path.name}", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> int:
        """Add a line and return where in the file it will start.

        Raises
        ------
        JournalError
            An earlier line could not be written.
        """
        if self._error is not None:
            raise self._failure(self._error)
        with self._appending:
            start = self._end
            self._end += len(line)
            self._waiting.append(line)
        if self._end - self._on_disk > _MAX_WAITING_BYTES:
            # The disk stands still; better that the run does too than that memory fills up.
            self.flush()
        return start

    def flush(self, *, up_to: int | None = None) -> None:
        """Return when all lines, or those that start before `up_to`, are on the disk.

        Raises
        ------
        JournalError
            They cannot be written. They are kept, and the next call tries again if the disk was full.
        """
        if up_to is not None and up_to < self._on_disk:
            return
        with self._writing:
            if self._error is not None and self._error.errno not in _CURABLE:
                raise self._failure(self._error)
            with self._appending:
                lines, self._waiting = self._waiting, []
            if lines:
                self._write(b"".join(lines))

    def close(self) -> None:
        """Flush and end the thread.

        Raises
        ------
        JournalError
            As for `flush`.
        """
        self._closing.set()
        self._thread.join()
        self.flush()

    def _write(self, data: bytes) -> None:
        try:
            while self._unsynced < len(data):
                self._unsynced += os.write(self._descriptor, memoryview(data)[self._unsynced :])
            self._sync()
        except OSError as error:
            self._error = error
            with self._appending:
                self._waiting.insert(0, data)
            raise self._failure(error) from None
        self._error = None
        self._on_disk += len(data)
        self._unsynced = 0

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError:
            # Nobody knows now how much of it is on the disk: all is to be written again.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._on_disk)
                self._unsynced = 0
            raise

    def _keep_flushing(self) -> None:
        while not self._closing.wait(self._interval):
            # The error is kept for the next call of append, flush or close.
            with suppress(JournalError):
                self.flush()

    def _failure(self, error: OSError) -> JournalError:
        cure = "free some space" if error.errno in _CURABLE else "mend that"
        return JournalError(
            f"{self._path} cannot be written: {error.strerror}; {cure} and start the run again: "
            "it goes on from what is in there"
        )

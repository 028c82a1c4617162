"""Opens a journal's file for one client only."""

import errno
import fcntl
import os
import stat
from pathlib import Path

from amela_client.errors import JournalError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a file for reading and appending, and lock it.

    Returns
    -------
    descriptor
        Of the file, which is made if there is none.
    locked
        False where the file system has no locks.

    Raises
    ------
    JournalError
        Another client holds the lock, or the path does not lead to a regular file.
    OSError
        The file cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise JournalError(f"{path} is not a regular file; choose another output")
            locked = _lock(descriptor, path)
            # Another client may have finished with the file, and deleted it, since it was opened.
            if _is_at(path, descriptor):
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(
            f"{path} is in use: another client works on this run; wait for it or end it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

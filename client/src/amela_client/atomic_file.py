"""Files that appear whole or not at all."""

import errno
import fcntl
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str], *, sweep: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well, and vanishes otherwise.

    It is written beside `path`, forced to the disk and renamed, with the permissions of the file that it
    replaces. A symbolic link stays one: what it leads to is replaced.

    Parameters
    ----------
    sweep
        Whether to remove first what writers of this file have left that were killed. It costs a look through
        the folder.

    Raises
    ------
    OSError
        The folder cannot be written to, the disk is full, or `path` is not a regular file.
    """
    target = target_of(path)
    mode = _mode_of(target)
    if sweep:
        _remove_leftovers(target)
    temporary = target.with_name(temporary_name(target.name))
    try:
        with temporary.open("xb") as file:
            if sweep:
                # Says that the file is no leftover. Where there are no locks, leftovers stay.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            # The lock ends with the file.
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return the file that is replaced: where `path` leads if it is a link.

    Raises
    ------
    OSError
        Links lead in a circle.
    """
    try:
        return Path(path).resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def temporary_name(name: str) -> str:
    """Return what a file is called until it is whole."""
    return f".{name}.{secrets.token_hex(4)}.tmp"


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk, so that a rename or a new file outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such thing; they keep names in order themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"):
        # One that is locked has a writer still.
        with suppress(OSError), leftover.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _mode_of(path: Path) -> int | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    return stat.S_IMODE(status.st_mode)

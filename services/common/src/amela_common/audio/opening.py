"""Opening a recording: which files a server may read, and what can stand in the way."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, cast

from amela_common.audio.source import AudioLimits, AudioSource
from amela_common.errors import RequestError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@contextmanager
def open_audio(source: AudioSource, limits: AudioLimits) -> Iterator[BinaryIO]:
    """Open the bytes of a recording, wherever they are.

    What it gives is a descriptor of the very file that was checked: nothing
    that happens to the path afterwards, a link swapped for another, say, can
    lead the decoders elsewhere.

    Raises
    ------
    RequestError
        PATH_FORBIDDEN, AUDIO_NOT_FOUND, AUDIO_NOT_A_FILE, AUDIO_UNREADABLE, AUDIO_EMPTY,
        AUDIO_TOO_LARGE; STORAGE_FAILED also while the file is read.
    """
    if source.content is not None:
        _check_content(source, source.content, limits)
        yield _MemoryFile(source.content)
        return
    with _DiskFile(_open(source, limits.roots)) as file:
        try:
            if not file.read(1) and file.failure is None:
                raise source.error("AUDIO_EMPTY", "has 0 bytes")
            file.seek(0)
            yield cast(BinaryIO, file)
        except Exception:
            if file.failure is None:
                raise
        if file.failure is not None:
            # A decoder takes the failure for the end of the file; what it made of that counts for nothing.
            raise _refusal(source, file.failure) from file.failure


def _check_content(source: AudioSource, content: bytes, limits: AudioLimits) -> None:
    if not content:
        raise source.error("AUDIO_EMPTY", "has 0 bytes")
    if limits.max_bytes is not None and len(content) > limits.max_bytes:
        raise source.error(
            "AUDIO_TOO_LARGE",
            f"has {len(content):,} bytes, and the server takes {limits.max_bytes:,}; send the path instead",
            limit=str(limits.max_bytes),
        )


def _open(source: AudioSource, roots: tuple[str, ...]) -> int:
    assert source.path is not None
    try:
        # O_PATH touches nothing: no device answers, no FIFO waits, nothing is read that may not be.
        place = os.open(source.path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if not _allowed(_resolve(source.path), roots):
            raise _forbidden(source, roots) from None
        raise _refusal(source, error) from error
    try:
        itself = f"/proc/self/fd/{place}"
        if not _allowed(Path(itself).readlink(), roots):
            raise _forbidden(source, roots)
        mode = os.fstat(place).st_mode
        if not stat.S_ISREG(mode):
            raise source.error("AUDIO_NOT_A_FILE", f"is {_KINDS.get(stat.S_IFMT(mode), 'not a file')}")
        return os.open(itself, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(source, error) from error
    finally:
        os.close(place)


_KINDS = {
    stat.S_IFDIR: "a directory; name the file in it",
    stat.S_IFIFO: "a FIFO, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def _resolve(path: str) -> PurePath:
    try:
        return PurePath(os.path.realpath(path))
    except RecursionError:
        # A chain of a thousand links: whoever made it gets no answer about where it leads.
        return PurePath()


def _allowed(resolved: PurePath, roots: tuple[str, ...]) -> bool:
    return any(resolved.is_relative_to(root) for root in roots)


def _forbidden(source: AudioSource, roots: tuple[str, ...]) -> RequestError:
    where = f"the server reads below {', '.join(roots)}" if roots else "the server reads no paths"
    return source.error("PATH_FORBIDDEN", f"lies outside the audio roots, links and '..' resolved; {where}")


def _refusal(source: AudioSource, error: OSError) -> RequestError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return source.error("AUDIO_NOT_FOUND", f"there is no such file ({error.strerror})")
        case errno.EACCES | errno.EPERM:
            return source.error("AUDIO_UNREADABLE", "the server's user may not read it")
        case _:
            return source.error("STORAGE_FAILED", f"cannot be read right now ({error.strerror})")


class _MemoryFile(io.BytesIO):
    """Bytes as a file that takes a seek to before its beginning, which broken headers lead to."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return super().seek(0)


class _DiskFile(io.RawIOBase):
    """A file that reports a failing disk as the end of the file, and remembers it.

    The decoders' C code has no way to hand an ``OSError`` on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._position = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            count = os.preadv(self._descriptor, [buffer], self._position)
        except OSError as error:
            self.failure = error
            return 0
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

"""Open a file only if it is the one that was published, or the operator vouches for it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from amela_common.errors import ConfigError

from amela_sts.checkpoints.catalogue import published_files


class CheckedFile(NamedTuple):
    """An open file at its beginning, and the digest of what it holds."""

    file: BinaryIO
    sha256: str


@contextmanager
def checked(path: Path, *, trust: bool, pickled: bool) -> Iterator[CheckedFile]:
    """Open a file whose checksum is in order.

    The digest is taken of the open file, so that what is read is what was checked.

    Parameters
    ----------
    trust
        Whether the operator vouches for files whose checksum is not in the table.
    pickled
        Whether reading the file means to unpickle it, which an unknown one is not good enough for.

    Raises
    ------
    ConfigError
        If the file cannot be opened, has the name of a published file but not its checksum, or is an
        unknown pickle that nobody vouches for.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    with file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _check(path, sha256, trust=trust, pickled=pickled)
        file.seek(0)
        yield CheckedFile(file, sha256)


def _check(path: Path, sha256: str, *, trust: bool, pickled: bool) -> None:
    files = published_files().values()
    if any(file.sha256 == sha256 for file in files) or trust:
        return
    for file in files:
        if file.file == path.name:
            raise ConfigError(
                f"{path}: its sha256 is {sha256}, that of the published file is {file.sha256}: the download"
                " is damaged or it is another file; stage it again, or give --trust if it is your own"
            )
    if pickled:
        raise ConfigError(
            f"{path}: its sha256 {sha256} is not a published checkpoint's, and a pickle can run code:"
            " give --trust if you know where it comes from"
        )

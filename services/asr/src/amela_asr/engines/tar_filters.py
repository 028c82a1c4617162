"""NeMo's checkpoints under a Python whose tarfile has no filters, as Debian 12's own 3.11.2."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def tar_filters() -> Iterator[None]:
    """Let ``TarFile.extract`` take ``filter="data"``, with which NeMo unpacks, where it does not yet.

    NeMo turns away links and names that lead elsewhere by itself. Besides these, the filter refuses devices
    and FIFOs and keeps owners and modes from the archive out; so does this.
    """
    if hasattr(tarfile, "data_filter"):
        yield
        return
    extract = tarfile.TarFile.extract

    def filtered(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str = "", **_: Any) -> None:
        if member.isfile() or member.isdir():
            extract(archive, member, path, set_attrs=False)

    tarfile.TarFile.extract = filtered  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        tarfile.TarFile.extract = extract  # type: ignore[method-assign]

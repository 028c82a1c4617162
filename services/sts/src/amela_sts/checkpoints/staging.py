"""Fetch a published model's files: each checked, and in its place only when it is whole."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from amela_common.errors import ConfigError

from amela_sts.checkpoints.catalogue import PublishedFile, PublishedModel
from amela_sts.checkpoints.kmeans import load_centres

_CHUNK = 1 << 20
_STALLED_SECONDS = 60


def stage(model: PublishedModel, folder: Path) -> Iterator[str]:
    """Fetch what is not there yet, and say of each file what was done.

    Centres are unpickled into an npz here, once.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or a file cannot be fetched or is not the published one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--to {folder}: {error.strerror}") from error
    for file in model.files.values():
        path = folder / file.file
        if path.is_file() and _sha256(path) == file.sha256:
            yield f"there     {path}"
            continue
        _fetch(file, path)
        yield f"fetched   {path}"
    centres, _ = load_centres(folder / model.files["kmeans"].file, trust=False)
    yield f"centres   {len(centres)} of width {centres.shape[1]}"


def _fetch(file: PublishedFile, path: Path) -> None:
    digest = hashlib.sha256()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as error:
        raise ConfigError(f"{path.parent}: {error.strerror}") from error
    try:
        with (
            os.fdopen(handle, "wb") as target,
            urllib.request.urlopen(file.url, timeout=_STALLED_SECONDS) as source,  # noqa: S310 - from our table
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != file.sha256:
            raise ConfigError(
                f"{file.url}: its sha256 is {digest.hexdigest()}, not {file.sha256}: the download broke off,"
                " or the file is not the published one any more"
            )
        Path(name).replace(path)
    except (OSError, urllib.error.URLError) as error:
        raise ConfigError(f"{file.url}: cannot be fetched to {path}: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

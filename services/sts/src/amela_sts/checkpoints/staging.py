"""Fetch a published model's files: each checked, and in its place only when it is whole."""

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from amela_common.errors import ConfigError

from amela_sts.checkpoints.catalogue import PublishedFile, PublishedModel
from amela_sts.checkpoints.kmeans import load_centres
from amela_sts.checkpoints.whole_file import whole_file

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
        with (
            whole_file(path) as target,
            urllib.request.urlopen(file.url, timeout=_STALLED_SECONDS) as source,  # noqa: S310 - from our table
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise ConfigError(
                    f"{file.url}: its sha256 is {digest.hexdigest()}, not {file.sha256}: the download broke"
                    " off, or the file is not the published one any more"
                )
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{file.url}: cannot be fetched to {path}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

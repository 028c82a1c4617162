"""Shares out a manifest to the tasks of a job array; `share_merge` puts their results together again.

Entry i of a manifest goes to share i modulo N. Each line of a share is marked with its place in the manifest,
so that results find back into their order and nothing is lost or doubled in silence.
"""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from amela_client.atomic_file import replacing
from amela_client.errors import ManifestError
from amela_client.jsonline import with_fields
from amela_client.manifest import Entry, Fault, FaultReason, Manifest
from amela_client.share_mark import FIELD, Mark

RECORD = "amela-run.json"
"""Name of the file beside the shares that says what was shared out."""


@dataclass(frozen=True)
class Outline:
    """What has to be known of a whole manifest before it is shared out.

    Attributes
    ----------
    entries
        How many there are.
    audio_root
        Deepest folder that all recordings lie in.
    """

    entries: int
    audio_root: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Read a manifest through.

        Raises
        ------
        ManifestError
            A line is no JSON object, or is a share's already.
        """
        entries, root = 0, None
        for item in manifest:
            _refuse_what_no_share_can_hold(item, manifest.path)
            if isinstance(item, Entry):
                folder = os.path.normpath("/" + item.audio_filepath.rpartition("/")[0].lstrip("/"))
                root = folder if root in (None, folder) else os.path.commonpath([root, folder])
            entries += 1
        return cls(entries, root or "/")


def share_names(stem: str, shares: int) -> list[str]:
    """Return how the shares of a manifest are called; sorted, they are in order."""
    width = max(2, len(str(shares - 1)))
    return [f"{stem}_split_{share:0{width}}.json" for share in range(shares)]


def write_shares(manifest: Manifest, total: int, shares: int, files: Mapping[int, Path]) -> None:
    """Write some of the shares of a manifest, all of them in one reading.

    Lines keep their fields as they are spelled; a relative path becomes an absolute one. Lines with a fault
    go along: the run of a share quarantines them.

    Parameters
    ----------
    total
        Number of entries.
    shares
        In how many the manifest is shared out.
    files
        Where those go that are to be written.

    Raises
    ------
    ManifestError
        A file cannot be written.
    """
    try:
        with ExitStack() as stack:
            open_files = {share: stack.enter_context(replacing(path)) for share, path in files.items()}
            for item in manifest:
                if file := open_files.get(item.index % shares):
                    file.write(f"{_share_line(item, total)}\n".encode())
    except OSError as error:
        raise ManifestError(f"the shares of {manifest.path} cannot be written: {cause_of(error)}") from None


def cause_of(error: OSError) -> str:
    """Say what is wrong with the files of shares."""
    if error.errno == errno.EMFILE:
        return "there are more shares than files that may be open at once; raise that with `ulimit -n`"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _refuse_what_no_share_can_hold(item: Entry | Fault, manifest: Path) -> None:
    where = f"{manifest}, line {item.line}"
    if isinstance(item, Fault) and item.text is None:
        raise ManifestError(f"{where}: {item.reason}: {item.message}; mend or remove the line to split")
    if isinstance(item, Entry) and FIELD in item.fields:
        raise ManifestError(f"{where} is a share's already (it has {FIELD}); merge the shares first")


def _share_line(item: Entry | Fault, total: int) -> str:
    text = item.raw if isinstance(item, Entry) else item.text
    assert text is not None
    repeats = item.message if isinstance(item, Fault) and item.reason is FaultReason.DUPLICATE else None
    fields = Mark(item.index, total, item.line, repeats).fields
    if _is_relative(item, text):
        fields = {"audio_filepath": item.audio_filepath, **fields}
    return with_fields(text, fields)


def _is_relative(item: Entry | Fault, text: str) -> bool:
    if isinstance(item, Entry):
        return item.relative
    return item.audio_filepath is not None and json.loads(text)["audio_filepath"] != item.audio_filepath

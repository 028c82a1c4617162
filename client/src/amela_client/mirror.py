"""Where the files go that recordings become: a folder with the structure that the recordings have."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from amela_client.duplicates import FirstLines
from amela_client.errors import ManifestError
from amela_client.manifest import Entry, Manifest

# With what marks it as unfinished a name must not be longer than the 255 bytes that file systems take.
_MAX_NAME_BYTES = 240


@dataclass(frozen=True)
class Mirror:
    """One file for each entry of a manifest.

    ``/corpus/a/b.flac`` becomes ``FOLDER/a/b.wav`` if ``/corpus`` is what all recordings have in common. Of a
    stretch, the name says the start and the end in seconds: ``b_1.500_4.250.wav``.

    Attributes
    ----------
    folder
        Absolute path.
    root
        Folder that all recordings have in common.
    suffix
        Of the files.
    """

    folder: Path
    root: str
    suffix: str

    @classmethod
    def plan(cls, manifest: Manifest, folder: str | os.PathLike[str], suffix: str) -> Self:
        """Find the common root of a manifest's recordings, and see that no file is wanted twice.

        Raises
        ------
        ManifestError
            Two entries would become the same file, a name would be too long, or a recording lies in `folder`,
            where it could be taken for a result.
        """
        folder = Path(folder).absolute()
        taken = os.path.realpath(folder)
        real_folder = functools.lru_cache(os.path.realpath)
        root, names = None, FirstLines()
        for item in manifest:
            if not isinstance(item, Entry):
                continue
            parent = _parent(item)
            root = parent if root is None else os.path.commonpath([root, parent])
            name = _name(item, suffix)
            if (first := names.note((parent, name), item.line)) is not None:
                raise ManifestError(
                    f"{manifest.path}: lines {first} and {item.line} would both become {name} in the same"
                    " folder; rename one of the recordings, or take one line out"
                )
            if len(name.encode()) > _MAX_NAME_BYTES:
                raise ManifestError(
                    f"{manifest.path}, line {item.line}: {name} is longer than {_MAX_NAME_BYTES} bytes, which"
                    " is what the name of a result may have; rename the recording"
                )
            if os.path.commonpath([taken, real_folder(parent)]) == taken:
                raise ManifestError(
                    f"{manifest.path}, line {item.line}: {item.audio_filepath} lies in {folder}, where"
                    " results could not be told from recordings; choose another folder"
                )
        return cls(folder, root or "/", suffix)

    def path(self, entry: Entry) -> Path:
        """Return which file an entry becomes."""
        return self.folder / os.path.relpath(_parent(entry), self.root) / _name(entry, self.suffix)


def _parent(entry: Entry) -> str:
    return os.path.normpath("/" + entry.audio_filepath.rpartition("/")[0].lstrip("/"))


def _name(entry: Entry, suffix: str) -> str:
    stem = Path(entry.audio_filepath).stem
    if entry.offset is None:
        return f"{stem}{suffix}"
    end = "" if entry.duration is None else f"_{entry.offset + entry.duration:.3f}"
    return f"{stem}_{entry.offset:.3f}{end}{suffix}"

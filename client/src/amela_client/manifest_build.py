"""Makes a manifest of the recordings below a folder."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from amela_client.atomic_file import replacing
from amela_client.audio_headers import duration
from amela_client.errors import ManifestError
from amela_client.jsonline import dumps

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "rf64", "w64", "flac", "aif", "aiff", "aifc", "au", "caf", "sph"),
        *("ogg", "oga", "opus", "mp3", "m4a", "m4b", "aac", "wma", "amr"),
        *("mp4", "mov", "3gp", "webm", "mka", "mkv"),
    )
)
"""How the names of recordings end, in lower case."""
# What following a link fails with that can lead to nothing.
_NOWHERE = frozenset({errno.ELOOP, errno.ENOTDIR})


class LeftOut(NamedTuple):
    """A recording or a folder that cannot be in a manifest; `name` can always be printed."""

    name: str
    why: str


@dataclass
class BuildReport:
    """What a manifest was made of.

    Attributes
    ----------
    recordings
        Number of entries written.
    seconds
        Sum of the durations that are known.
    without_duration
        Entries without one: their headers do not tell.
    left_out
        What could not be taken in.
    """

    recordings: int = 0
    seconds: float = 0.0
    without_duration: int = 0
    left_out: list[LeftOut] = field(default_factory=list)


def build_manifest(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> BuildReport:
    """Write a manifest with ``audio_filepath`` and, for WAV and FLAC, ``duration`` of each recording.

    Raises
    ------
    ManifestError
        The folder cannot be read or holds no recording, or the manifest cannot be written.
    """
    report = BuildReport()
    try:
        with replacing(output) as file:
            for found in find_audio(folder):
                if isinstance(found, LeftOut):
                    report.left_out.append(found)
                    continue
                entry: dict[str, object] = {"audio_filepath": str(found)}
                seconds = _duration(found)
                if seconds is None:
                    report.without_duration += 1
                else:
                    entry["duration"] = round(seconds, 6)
                    report.seconds += seconds
                report.recordings += 1
                file.write(f"{dumps(entry)}\n".encode())
            if not report.recordings:
                raise ManifestError(_nothing_found(folder, report.left_out))
    except OSError as error:
        raise ManifestError(f"{output} cannot be written: {error.strerror or error}") from None
    return report


def find_audio(folder: str | os.PathLike[str]) -> Iterator[Path | LeftOut]:
    """Yield the absolute paths of all recordings below a folder, in the order of their names.

    Links to folders are followed, but no folder is entered twice. Names that start with a dot are passed
    over. What should be a recording but cannot be in a manifest comes as `LeftOut`.

    Raises
    ------
    ManifestError
        The folder cannot be read.
    """
    root = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    entered: set[tuple[int, int]] = set()
    try:
        pending = [(root, _names(root, entered))]
        root.encode()
    except OSError as error:
        raise ManifestError(f"the folder {folder} cannot be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise ManifestError(f"the name of the folder {root!a} is not UTF-8; rename it") from None
    while pending:
        parent, names = pending[-1]
        if not names:
            pending.pop()
            continue
        path = os.path.join(parent, names.pop())  # noqa: PTH118 - there may be millions
        try:
            path.encode()
            if path.endswith("/"):
                pending.append((path, _names(path, entered)))
            elif os.path.isfile(path):  # noqa: PTH113
                yield Path(path)
            else:
                yield LeftOut(path, "not a regular file, or a link that leads nowhere")
        except UnicodeEncodeError:
            yield LeftOut(ascii(path)[1:-1], "the name is not UTF-8, which requests must be; rename it")
        except OSError as error:
            yield LeftOut(path, f"cannot be read: {error.strerror}")


def _names(folder: str, entered: set[tuple[int, int]]) -> list[str]:
    """Return what to look at in a folder, last name first; folders end in a slash.

    The slash also makes the order the one of whole paths.
    """
    status = os.stat(folder)  # noqa: PTH116
    if (status.st_dev, status.st_ino) in entered:
        return []
    entered.add((status.st_dev, status.st_ino))
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_recording = os.path.splitext(entry.name)[1].lower() in SUFFIXES  # noqa: PTH122
            try:
                is_folder = entry.is_dir()
            except OSError as error:
                # It must not cost the folder that it lies in. It may be a folder with recordings, which is
                # then named, unless it is a link that leads nowhere.
                is_folder = not is_recording and error.errno not in _NOWHERE
            if is_folder:
                names.append(f"{entry.name}/")
            elif is_recording:
                names.append(entry.name)
    return sorted(names, reverse=True)


def _duration(path: Path) -> float | None:
    # A file that cannot be read is still a recording: what is wrong with it, its server says.
    try:
        return duration(path)
    except OSError:
        return None


def _nothing_found(folder: str | os.PathLike[str], left_out: list[LeftOut]) -> str:
    message = f"there is no recording below {folder}: their names end in {', '.join(sorted(SUFFIXES))}"
    if left_out:
        name, why = left_out[0]
        message += f"; left out: {len(left_out)}, like {name}: {why}"
    return message

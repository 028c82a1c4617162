"""What is wrong with a manifest's lines, and with the files that they name."""

import os
import stat
from dataclasses import dataclass

from amela_client.manifest import Entry, Fault


@dataclass(frozen=True)
class Finding:
    """Something wrong with a line.

    `reason` is a `FaultReason`, or for files the name that a server would give:
    ``amela.common.v1.ErrorReason`` without its prefix.
    """

    line: int
    reason: str
    message: str
    audio_filepath: str | None


def check(item: Entry | Fault, *, files: bool = False) -> Finding | None:
    """Return what is wrong with a line of a manifest, or None.

    With `files`, whether the recording is there is looked at from this machine; servers may see others.
    """
    if isinstance(item, Fault):
        return Finding(item.line, item.reason, item.message, item.audio_filepath)
    problem = _file_problem(item.audio_filepath) if files else None
    return Finding(item.line, *problem, item.audio_filepath) if problem else None


def _file_problem(path: str) -> tuple[str, str] | None:  # noqa: PLR0911 - one for each thing wrong
    try:
        status = os.stat(path)  # noqa: PTH116 - there may be millions
    except (FileNotFoundError, NotADirectoryError):
        return "AUDIO_NOT_FOUND", f"there is no file {path}"
    except PermissionError:
        return "AUDIO_UNREADABLE", f"a folder on the way to {path} may not be entered"
    except OSError as error:
        return "STORAGE_FAILED", f"{path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "AUDIO_NOT_A_FILE", f"{path} is not a regular file"
    if not status.st_size:
        return "AUDIO_EMPTY", f"{path} is empty"
    if not os.access(path, os.R_OK, effective_ids=True):
        return "AUDIO_UNREADABLE", f"{path} may not be read"
    return None

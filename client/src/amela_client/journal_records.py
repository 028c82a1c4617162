"""What the lines of a journal say: which run it is, then one outcome for each entry that is done."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

FORMAT = 1
_HEADER_START = b'{"amela_journal": '


@dataclass(frozen=True)
class RunKey:
    """What makes two runs the same, so that one can go on with the other's results.

    Parameters
    ----------
    manifest
        Digest of the manifest.
    stage
        What is done with each entry: ``transcribe``, ``vad``, …
    options
        Every option that changes results, as JSON values.
    folder
        Where the manifest lies, which relative paths in it start from; empty if that is not known. Alone it
        makes no other run: `Journal.moved_from` says what it has to do with.
    """

    manifest: str
    stage: str
    options: Mapping[str, object] = field(default_factory=dict)
    folder: str = ""

    def differences(self, now: "RunKey") -> list[str]:
        """Return what is another way `now`, one phrase for each thing."""
        phrases = []
        if self.manifest != now.manifest:
            phrases.append("the manifest has changed")
        if self.stage != now.stage:
            phrases.append(f"it was {self.stage}, now it is {now.stage}")
        for name in sorted({*self.options, *now.options}):
            old, new = (json.dumps(key.options.get(name), sort_keys=True) for key in (self, now))
            if old != new:
                phrases.append(f"{name} was {old}, now it is {new}")
        return phrases


@dataclass(frozen=True)
class Failure:
    """Why an entry has no result, and whether another run can give it one."""

    reason: str
    message: str
    transient: bool


Outcome = dict[str, object] | Failure


def header_line(key: RunKey) -> bytes:
    """Return a journal's first line."""
    head: dict[str, object] = {"manifest": key.manifest, "stage": key.stage, "options": dict(key.options)}
    if key.folder:
        head["folder"] = key.folder
    return json.dumps({"amela_journal": FORMAT, **head}).encode() + b"\n"


def is_torn_header(start: bytes) -> bool:
    """Return whether a file that has no whole line can be a journal that was only begun."""
    return start.startswith(_HEADER_START) or _HEADER_START.startswith(start)


def parse_header(line: bytes) -> tuple[object, RunKey | None]:
    """Return a journal's format, and its key if that is this version's.

    Raises
    ------
    ValueError
        The line is not the first of a journal.
    """
    head = json.loads(line)
    match head:
        case {"amela_journal": 1, "manifest": str(manifest), "stage": str(stage), "options": dict(options)}:
            return FORMAT, RunKey(manifest, stage, options, str(head.get("folder", "")))
        case {"amela_journal": version} if version != FORMAT:
            return version, None
    raise ValueError("not the header of a journal")


def result_line(index: int, result: Mapping[str, object]) -> bytes:
    """Return the line that records an entry's result."""
    return b'{"index": %d, "result": %b}\n' % (index, json.dumps(result).encode())


def failure_line(index: int, failure: Failure) -> bytes:
    """Return the line that records an entry's failure."""
    return b'{"index": %d, "failure": %b}\n' % (index, json.dumps(asdict(failure)).encode())


def merged_line(manifest: str) -> bytes:
    """Return the line that says which digest the manifest has when the results are written into it."""
    return b'{"merged": %b}\n' % json.dumps(manifest).encode()


def is_merged_line(line: bytes) -> bool:
    """Return whether a line is such a one."""
    return line.startswith(b'{"merged": "')


def parse_record(line: bytes) -> tuple[int, Outcome] | None:
    """Return the index and the outcome that a line records, or None for a damaged line."""
    try:
        match json.loads(line):
            case {"index": int(index), "result": dict(result)} if index >= 0:
                return index, result
            case {"index": int(index), "failure": dict(failure)} if index >= 0:
                return index, Failure(**failure)
    except (ValueError, TypeError, RecursionError):
        return None
    return None

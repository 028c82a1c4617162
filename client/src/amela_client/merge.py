"""Puts a run's results back into the order of its manifest."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from amela_client.atomic_file import replacing
from amela_client.errors import MergeError
from amela_client.journal import Failure, Journal, Outcome
from amela_client.jsonline import dumps, with_fields
from amela_client.manifest import Entry, Fault, FaultReason, Manifest

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class MergeReport:
    """What came out.

    Attributes
    ----------
    results
        Entries that got a result.
    skipped
        Entries that had their result before.
    quarantined
        Lines in the file of errors.
    output, errors
        The files written; no `errors` where nothing is quarantined.
    """

    results: int
    skipped: int
    quarantined: int
    output: Path
    errors: Path | None


def errors_path(output: Path) -> Path:
    """Return where the quarantine of `output` goes: ``data.errors.jsonl`` beside ``data.json``."""
    return output.with_name(f"{output.stem}.errors.jsonl")


def check_output(manifest: Manifest, output: str | os.PathLike[str], *, in_place: bool = False) -> Path:
    """Return the absolute path of the results, if a run can end in writing them.

    Raises
    ------
    MergeError
        The output cannot be written, or writing it would cost the manifest.
    """
    path = Path(output).absolute()
    if not path.parent.is_dir():
        raise MergeError(f"there is no folder {path.parent} to write {path.name} into; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise MergeError(f"the folder {path.parent} cannot be written to; choose another output")
    if path.exists() and not path.is_file():
        raise MergeError(
            f"{path} is not a regular file, so that it cannot be replaced; choose another output"
        )
    if in_place and manifest.is_csv:
        raise MergeError(f"{manifest.path} is CSV, which cannot take results in place; name an output")
    if not in_place and path.exists() and path.samefile(manifest.path):
        raise MergeError(
            f"the output {path} is the manifest itself; to write results into it, ask for that (--in-place)"
        )
    errors = errors_path(path)
    if errors.exists() and errors.samefile(manifest.path):
        raise MergeError(
            f"the manifest {manifest.path} is where the errors of {path.name} go; choose another output"
        )
    return path


def merge_results(
    manifest: Manifest,
    journal: Journal,
    output: str | os.PathLike[str],
    *,
    in_place: bool = False,
    present: Callable[[Entry], Mapping[str, object] | None] = lambda entry: None,
) -> MergeReport:
    """Write one line for each entry that has a result, in manifest order.

    A line is the manifest's own, its other fields as they were spelled, with the result's fields at its end.
    What got no result goes to `errors_path`, one line each: ``line``, ``audio_filepath``, ``reason``,
    ``message``, ``raw`` where the line cannot be read, and of a share the mark. Both files appear whole or
    not at all.

    Parameters
    ----------
    manifest
        Of the run.
    journal
        With a record for every entry but those that `present` knows.
    output
        Where the results go, checked with `check_output` before the run.
    in_place
        Whether the output is the manifest, so that lines without a result stay in it as they are.
    present
        What the line of an entry without a record gains; None if it needs a record.

    Raises
    ------
    MergeError
        The run is not finished, or the files cannot be written.
    ManifestError
        The manifest has changed since the run began, or has vanished.
    """
    path = Path(output).absolute()
    results = skipped = quarantined = 0
    try:
        with ExitStack() as files:
            lines = files.enter_context(replacing(path))
            for item in manifest:
                outcome = _outcome(item, journal)
                if isinstance(outcome, Failure):
                    if not quarantined:
                        errors = files.enter_context(replacing(errors_path(path)))
                    quarantined += 1
                    errors.write(_error_line(item, outcome, manifest.mark(item)))
                    if in_place:
                        _copy_line(item, manifest.path, lines)
                    continue
                assert isinstance(item, Entry)
                results += outcome is not None
                skipped += outcome is None
                fields = present(item) if outcome is None else outcome
                if fields is None:
                    raise MergeError(
                        f"line {item.line} has neither a result nor a failure: the run is not finished"
                    )
                lines.write(f"{with_fields(item.raw, fields)}\n".encode())
        if not quarantined:
            errors_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise MergeError(
            f"{path} cannot be written: {error.strerror or error}. The results are safe in {journal.path}; "
            "mend that and start the run again"
        ) from None
    return MergeReport(results, skipped, quarantined, path, errors_path(path) if quarantined else None)


def _outcome(item: Entry | Fault, journal: Journal) -> Outcome | None:
    if isinstance(item, Fault):
        return Failure(item.reason, item.message, transient=False)
    return journal.read(item.index)


def _error_line(item: Entry | Fault, failure: Failure, mark: Mapping[str, object]) -> bytes:
    line: dict[str, object] = {"line": item.line}
    if item.audio_filepath is not None:
        line["audio_filepath"] = item.audio_filepath
    line |= {"reason": failure.reason, "message": failure.message}
    if isinstance(item, Fault) and item.text is None:
        line["raw"] = item.raw.decode(errors="backslashreplace")
    return f"{dumps({**line, **mark})}\n".encode()


def _copy_line(item: Entry | Fault, manifest: Path, lines: BinaryIO) -> None:
    if isinstance(item, Entry):
        lines.write(item.raw.encode() + b"\n")
    elif item.reason is not FaultReason.LINE_TOO_LONG:
        lines.write(item.raw + b"\n")
    else:
        # Only its beginning was kept.
        start, stop = item.span
        with manifest.open("rb") as file:
            file.seek(start)
            for size in range(stop - start, 0, -_CHUNK_BYTES):
                lines.write(file.read(min(size, _CHUNK_BYTES)))

"""Puts a run's results back into the order of its manifest."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from amela_client.atomic_file import replacing, target_of, temporary_name
from amela_client.errors import MergeError
from amela_client.journal import Failure, Journal, Outcome
from amela_client.jsonline import dumps, with_fields
from amela_client.manifest import Entry, Fault, FaultReason, Manifest, digest_of

_CHUNK_BYTES = 1 << 20
# Escapes make up to six times as much of it, and a line of errors has to stay one that can be read.
_MAX_RAW_BYTES = 64 << 10
# What outputs are called, which tables and lists of files are not.
_SUFFIXES = ("", ".json", ".jsonl", ".ndjson")


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


def errors_path(output: Path, stage: str | None = None) -> Path:
    """Return where the quarantine of `output` goes: ``data.errors.jsonl`` beside ``data.json``.

    Of a `stage` in place it is ``data.transcribe.errors.jsonl``: the other is that of the stage which wrote
    the manifest.
    """
    return output.with_name(f"{output.stem}{f'.{stage}' if stage else ''}.errors.jsonl")


def check_output(
    manifest: Manifest,
    output: str | os.PathLike[str],
    *,
    in_place: bool = False,
    stage: str | None = None,
    with_errors: bool = True,
) -> Path:
    """Return the absolute path of the results, if a run can end in writing them.

    Parameters
    ----------
    stage
        What the run does, which in place is in the name of the file of errors.
    with_errors
        Whether a file of errors goes with the output.

    Raises
    ------
    MergeError
        The output cannot be written, or writing it would cost the manifest.
    """
    path = Path(output).absolute()
    try:
        _refuse_unwritable(path)
        if in_place and manifest.is_csv:
            raise MergeError(f"{manifest.path} is CSV, which cannot take results in place; name an output")
        if not in_place and path.exists() and path.samefile(manifest.path):
            raise MergeError(
                f"the output {path} is the manifest itself; to write results into it, ask for that"
                " (--in-place)"
            )
        if with_errors:
            errors = errors_path(path, stage if in_place else None)
            _refuse_unwritable(errors)
            if errors.exists() and errors.samefile(manifest.path):
                raise MergeError(
                    f"the manifest {manifest.path} is where the errors of {path.name} go; choose another"
                    " output"
                )
            refuse_errors_of_another(path, errors)
    except OSError as error:
        raise MergeError(
            f"{path} cannot be written: {error.strerror or error}; choose another output"
        ) from None
    return path


def refuse_errors_of_another(output: Path, errors: Path) -> None:
    """See that the file of errors, if there is one, is not that of an output with another suffix.

    Raises
    ------
    MergeError
        It may be: another output is there, and was written later than this one.
    """
    if not errors.exists():
        return
    written = output.stat().st_mtime_ns if output.exists() else 0
    for suffix in _SUFFIXES:
        other = output.with_name(output.stem + suffix)
        if other != output and other.is_file() and other.stat().st_mtime_ns > written:
            raise MergeError(
                f"{errors} may be that of {other.name}, and would be replaced; move it away or choose another"
                " output"
            )


def _refuse_unwritable(path: Path) -> None:
    """See that a file can take the place of `path`, or of what it leads to, in the end."""
    for place in dict.fromkeys((path, target_of(path))):
        folder, leads = place.parent, "" if place == path else f", where {path} leads"
        if not folder.is_dir():
            raise MergeError(f"there is no folder {folder} to write {place.name} into{leads}; make it first")
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise MergeError(f"the folder {folder} cannot be written to{leads}; choose another output")
        size, room = len(os.fsencode(place.name)), _room_for_name(folder)
        if size > room:
            raise MergeError(
                f"the name {place.name} has {size} bytes, and at most {room} can be written in {folder};"
                " choose a shorter name for the output"
            )
        if place.exists() and not place.is_file():
            raise MergeError(
                f"{place} is not a regular file, so that it cannot be replaced; choose another output"
            )


def _room_for_name(folder: Path) -> int:
    return os.pathconf(folder, "PC_NAME_MAX") - len(temporary_name(""))


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
    ``message``, ``raw`` where the line cannot be read, ``raw_bytes`` where that is only its beginning, and of
    a share the mark. Both files appear whole or not at all.

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
    JournalError
        The journal cannot be read, or in place not be written.
    """
    path = Path(output).absolute()
    errors_file = errors_path(path, journal.key.stage if in_place else None)
    results = skipped = quarantined = 0
    try:
        with ExitStack() as files:
            lines = files.enter_context(replacing(path, sweep=True))
            for item in manifest:
                outcome = _outcome(item, journal)
                if isinstance(outcome, Failure):
                    if not quarantined:
                        errors = files.enter_context(replacing(errors_file, sweep=True))
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
            if in_place:
                lines.flush()
                with Path(lines.name).open("rb") as written:
                    journal.note_merged(digest_of(written))
        if not quarantined:
            errors_file.unlink(missing_ok=True)
    except OSError as error:
        raise MergeError(
            f"{path} cannot be written: {error.strerror or error}. The results are safe in {journal.path}; "
            "mend that and start the run again"
        ) from None
    return MergeReport(results, skipped, quarantined, path, errors_file if quarantined else None)


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
        raw = item.raw[:_MAX_RAW_BYTES]
        line["raw"] = raw.decode(errors="backslashreplace")
        if len(raw) < len(item.raw) or item.reason is FaultReason.LINE_TOO_LONG:
            start, stop = item.span
            line["raw_bytes"] = stop - start
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

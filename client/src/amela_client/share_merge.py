"""Puts the results of a manifest's shares together, in the manifest's order."""

import glob
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from amela_client.atomic_file import replacing
from amela_client.entries import EntryProblem, read_objects
from amela_client.errors import MergeError
from amela_client.jsonline import with_fields, without_fields
from amela_client.lines import read_lines
from amela_client.merge import errors_path, refuse_errors_of_another
from amela_client.share_mark import FIELD, Mark
from amela_client.shares import RECORD, cause_of
from amela_client.stages import Transcription, VoiceDetection
from amela_client.sts_stages import Encoding

_NAMED = 10
_STAGES = (Transcription, VoiceDetection, Encoding)
_MODEL_FIELDS = tuple(stage.model_field for stage in _STAGES)
# What lies beside results, and is none.
_NOT_RESULTS = (".errors.jsonl", ".journal")


@dataclass(frozen=True)
class SharesReport:
    """What came out.

    Attributes
    ----------
    lines
        In the output.
    quarantined
        In the file of errors.
    shares
        Files that were put together.
    output, errors
        The files written; no `errors` where nothing is quarantined.
    models
        Models that made results, by the field that says so.
    """

    lines: int
    quarantined: int
    shares: int
    output: Path
    errors: Path | None
    models: Mapping[str, list[str]]


def merge_shares(patterns: Sequence[str], output: str | os.PathLike[str]) -> SharesReport:
    """Write the lines of all shares into `output`, in the order of the manifest that was shared out.

    What the shares' files of errors say goes into the output's, in the same order.

    Parameters
    ----------
    patterns
        File names, or patterns of them with ``*``, ``?`` and ``[…]``. Files of errors, journals, what
        describes a split, and the output itself are left out.
    output
        Replaced when all lines are there.

    Raises
    ------
    MergeError
        No file matches, an entry is neither in the results nor in the errors, comes twice or does not come
        from a split, or the output cannot be written.
    """
    output = Path(output).absolute()
    errors = errors_path(output)
    paths = _matching(patterns, output)
    try:
        refuse_errors_of_another(output, errors)
        with ExitStack() as stack:
            sources = [_Source.open(path, stack) for path in paths]
            failures = [_Source.open(path, stack) for path in _quarantines(paths)]
            total = _total(sources + failures)
            results, quarantine = _Places(sources, total), _Places(failures, total)
            _refuse_gaps(results, quarantine, total, len(paths))
            merged = stack.enter_context(replacing(output, sweep=True))
            for line in results:
                merged.write(f"{without_fields(line, (FIELD,))}\n".encode())
            if quarantine.count:
                quarantined = stack.enter_context(replacing(errors, sweep=True))
                for line in quarantine:
                    quarantined.write(f"{_of_whole_manifest(line)}\n".encode())
        if not quarantine.count:
            errors.unlink(missing_ok=True)
    except OSError as error:
        raise MergeError(f"{output} cannot be put together: {cause_of(error)}") from None
    return SharesReport(
        lines=results.count,
        quarantined=quarantine.count,
        shares=len(paths),
        output=output,
        errors=errors if quarantine.count else None,
        models={name: sorted(models) for name, models in results.models.items()},
    )


class _Line(NamedTuple):
    number: int
    start: int
    mark: Mark
    fields: Mapping[str, object]


class _Source(NamedTuple):
    path: Path
    file: BinaryIO

    @classmethod
    def open(cls, path: Path, stack: ExitStack) -> "_Source":
        return cls(path, stack.enter_context(path.open("rb")))

    def lines(self) -> Iterator[_Line]:
        self.file.seek(0)
        for line, fields, _ in read_objects(read_lines(self.file)):
            try:
                if isinstance(fields, EntryProblem):
                    raise ValueError(f"{fields.reason}: {fields.message}")
                mark = Mark.of(fields)
            except ValueError as error:
                raise MergeError(f"{self.where(line.number)}: {error}") from None
            if mark is None:
                raise MergeError(
                    f"{self.where(line.number)} has no {FIELD}: only what comes from `amela-client manifest"
                    " split` or --tasks can be put in order"
                )
            yield _Line(line.number, line.span[0], mark, fields)

    def where(self, number: int) -> str:
        return f"{self.path}, line {number}"

    def where_at(self, start: int) -> str:
        return self.where(next(line.number for line in self.lines() if line.start == start))


class _Places:
    """Where each entry's line stands: in which file, and where in that."""

    def __init__(self, sources: Sequence[_Source], total: int) -> None:
        self.count = 0
        self.models: dict[str, set[str]] = {}
        self._sources = sources
        self._total = total
        self._numbers = array("h", [-1]) * total
        self._starts = array("q", [0]) * total
        for number, source in enumerate(sources):
            for line in source.lines():
                self._note(number, line)

    def _note(self, number: int, line: _Line) -> None:
        index, source = line.mark.index, self._sources[number]
        if line.mark.total != self._total:
            raise MergeError(
                f"{source.where(line.number)} comes from a manifest of {line.mark.total} entries, and the"
                f" lines before from one of {self._total}: these are not the shares of one split"
            )
        if index in self:
            first = self._sources[self._numbers[index]].where_at(self._starts[index])
            raise MergeError(
                f"entry {index + 1} of {self._total} is there twice: {first}, and {source.where(line.number)}"
            )
        self._numbers[index] = number
        self._starts[index] = line.start
        self.count += 1
        for name in _MODEL_FIELDS:
            match line.fields.get(name):
                case {"engine": engine, "name": model, "fingerprint": fingerprint}:
                    words = f"{engine} {model} (fingerprint {fingerprint})"
                    self.models.setdefault(name, set()).add(words)

    def __contains__(self, index: int) -> bool:
        return self._numbers[index] >= 0

    def __iter__(self) -> Iterator[str]:
        """Yield the lines in the order of their entries."""
        for number, start in zip(self._numbers, self._starts, strict=True):
            if number >= 0:
                file = self._sources[number].file
                file.seek(start)
                yield file.readline().decode("utf-8-sig")


def _of_whole_manifest(line: str) -> str:
    mark = Mark.of(json.loads(line))
    assert mark is not None
    return with_fields(without_fields(line, (FIELD,)), {"line": mark.line})


def _matching(patterns: Sequence[str], output: Path) -> list[Path]:
    names: set[str] = set()
    for pattern in patterns:
        names.update([pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = [Path(name).absolute() for name in sorted(names)]
    kept = [
        path
        for path in paths
        if path != output and path.name != RECORD and not path.name.endswith(_NOT_RESULTS)
    ]
    if not kept:
        raise MergeError(f"no share matches {' '.join(patterns)} from {Path.cwd()}")
    return kept


def _quarantines(paths: Sequence[Path]) -> list[Path]:
    """Return the files of errors of shares, those of stages in place included."""
    names = (None, *(stage.name for stage in _STAGES))
    named = dict.fromkeys(errors_path(path, name) for path in paths for name in names)
    return [path for path in named if path.exists()]


def _total(sources: Sequence[_Source]) -> int:
    """Return how many entries there must be, as far as the first line knows."""
    size = sum(os.fstat(source.file.fileno()).st_size for source in sources)
    for source in sources:
        for line in source.lines():
            if line.mark.total > size:
                raise MergeError(
                    f"{source.where(line.number)} is one of {line.mark.total} entries, which {size} bytes of"
                    " shares cannot hold"
                )
            return line.mark.total
    raise MergeError(f"there is no line in {', '.join(str(source.path) for source in sources[:_NAMED])}")


def _refuse_gaps(results: _Places, quarantine: _Places, total: int, shares: int) -> None:
    def missing() -> Iterator[int]:
        return (index for index in range(total) if index not in results and index not in quarantine)

    if count := sum(1 for _ in missing()):
        named = ", ".join(str(index + 1) for index in islice(missing(), _NAMED))
        raise MergeError(
            f"{count} of {total} entries are missing from {shares} shares: {named}"
            f"{', …' if count > _NAMED else ''}. `amela-client manifest tasks` says which tasks of a split"
            " are not done"
        )

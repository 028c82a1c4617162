"""Splits a manifest into shares for job arrays, and puts the shares' results together again.

Entry i of a manifest goes to share i modulo N. Each line of a share says in ``amela_share`` which entry it is
and of how many, so that results find back into their order and nothing is lost or doubled in silence.
"""

import errno
import glob
import os
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from amela_client.atomic_file import replacing
from amela_client.entries import EntryProblem, Record, read_objects
from amela_client.errors import ManifestError, MergeError
from amela_client.jsonline import with_fields, without_fields
from amela_client.lines import read_lines
from amela_client.manifest import Entry, Fault, Manifest
from amela_client.merge import errors_path

FIELD = "amela_share"
"""Field that says which entry a line is: ``[index from 0, number of entries]``."""

_NAMED = 10


def split(manifest: Manifest, splits: int, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``STEM_split_00.json``, ``STEM_split_01.json``, … into `folder` and return their paths.

    Lines keep their fields as they are spelled; a relative path becomes an absolute one. Lines with a fault
    go into the shares as well, if they are JSON objects: the run of a share quarantines them.

    Raises
    ------
    ManifestError
        A line is no JSON object or is a share's already, there are fewer entries than shares, or there are
        shares of this name in the folder, which may hold results.
    """
    total = _count(manifest)
    if not 1 <= splits <= total:
        raise ManifestError(f"{manifest.path} has {total} entries, which do not make {splits} shares")
    folder = Path(folder).absolute()
    width = max(2, len(str(splits - 1)))
    shares = [folder / f"{manifest.path.stem}_split_{share:0{width}}.json" for share in range(splits)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if present := sorted(folder.glob(f"{glob.escape(manifest.path.stem)}_split_*.json")):
            raise ManifestError(
                f"{folder} has shares already, like {present[0].name}, which may hold results; move them "
                "away or choose another folder"
            )
        with ExitStack() as stack:
            files = [stack.enter_context(replacing(share)) for share in shares]
            for item in manifest:
                line = _share_line(item, total)
                files[item.index % splits].write(f"{line}\n".encode())
    except OSError as error:
        raise ManifestError(f"the shares cannot be written into {folder}: {_cause(error)}") from None
    return shares


def merge_shares(patterns: Sequence[str], output: str | os.PathLike[str]) -> tuple[int, int]:
    """Write the lines of all shares into `output`, in the order of the manifest that was split.

    Parameters
    ----------
    patterns
        File names, or patterns of them with ``*``, ``?`` and ``[…]``. Files of errors and the output itself
        are left out.
    output
        Replaced when all lines are there.

    Returns
    -------
    lines, shares
        How many of them were put together.

    Raises
    ------
    MergeError
        No file matches, a line is missing, comes twice or does not come from a split, or the output cannot
        be written.
    """
    output = Path(output).absolute()
    paths = _matching(patterns, output)
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            shares, starts = _locate(paths, files)
            with replacing(output) as merged:
                for share, start in zip(shares, starts, strict=True):
                    files[share].seek(start)
                    text = files[share].readline().decode("utf-8-sig")
                    merged.write(f"{without_fields(text, (FIELD,))}\n".encode())
    except OSError as error:
        raise MergeError(f"{output} cannot be put together: {_cause(error)}") from None
    return len(shares), len(paths)


def _count(manifest: Manifest) -> int:
    total = 0
    for item in manifest:
        where = f"{manifest.path}, line {item.line}"
        if isinstance(item, Fault) and item.text is None:
            raise ManifestError(f"{where}: {item.reason}: {item.message}; mend or remove the line to split")
        if isinstance(item, Entry) and FIELD in item.fields:
            raise ManifestError(f"{where} is a share's already (it has {FIELD}); merge the shares first")
        total += 1
    return total


def _share_line(item: Entry | Fault, total: int) -> str:
    fields: dict[str, object] = {FIELD: [item.index, total]}
    if isinstance(item, Fault):
        assert item.text is not None
        return with_fields(item.text, fields)
    if item.relative:
        fields = {"audio_filepath": item.audio_filepath, **fields}
    return with_fields(item.raw, fields)


def _matching(patterns: Sequence[str], output: Path) -> list[Path]:
    names: set[str] = set()
    for pattern in patterns:
        names.update([pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = [Path(name).absolute() for name in sorted(names)]
    kept = [path for path in paths if path != output and not path.name.endswith(".errors.jsonl")]
    if not kept:
        raise MergeError(f"no share matches {' '.join(patterns)} from {Path.cwd()}")
    return kept


def _locate(paths: Sequence[Path], files: Sequence[BinaryIO]) -> "tuple[array[int], array[int]]":
    """Return, for each entry, the number of its share and where in that its line starts."""
    shares, starts = array("h"), array("q")
    size = sum(os.fstat(file.fileno()).st_size for file in files)
    for number, (path, file) in enumerate(zip(paths, files, strict=True)):
        for record in read_objects(read_lines(file)):
            where = f"{path}, line {record.line.number}"
            index, total = _place(record, where)
            if total > size:
                raise MergeError(
                    f"{where} is one of {total} entries, which {size} bytes of shares cannot hold"
                )
            if not shares:
                shares, starts = array("h", [-1]) * total, array("q", [0]) * total
            if total != len(shares):
                raise MergeError(
                    f"{where} comes from a manifest of {total} entries, and the lines before from one of "
                    f"{len(shares)}: these are not the shares of one split"
                )
            if shares[index] >= 0:
                first = f"{paths[shares[index]]}, line {_line_at(files[shares[index]], starts[index])}"
                raise MergeError(f"entry {index + 1} of {total} is there twice: {first}, and {where}")
            shares[index] = number
            starts[index] = record.line.span[0]
    _refuse_gaps(shares, paths)
    return shares, starts


def _place(record: Record, where: str) -> tuple[int, int]:
    if isinstance(record.fields, EntryProblem):
        raise MergeError(f"{where}: {record.fields.reason}: {record.fields.message}")
    match record.fields.get(FIELD):
        case [int(index), int(total)] if 0 <= index < total:
            return index, total
        case None:
            raise MergeError(
                f"{where} has no {FIELD}: only lines of `amela-client manifest split` can be put in order"
            )
        case other:
            raise MergeError(f"{where}: {FIELD} is {other!r:.60}, not the two numbers that the split wrote")


def _refuse_gaps(shares: "array[int]", paths: Sequence[Path]) -> None:
    if not shares:
        raise MergeError(f"there is no line in {', '.join(str(path) for path in paths[:_NAMED])}")
    missing = shares.count(-1)
    if not missing:
        return
    gaps = islice((str(index + 1) for index, share in enumerate(shares) if share < 0), _NAMED)
    named = ", ".join(gaps) + (", …" if missing > _NAMED else "")
    message = f"{missing} of {len(shares)} entries are missing from {len(paths)} shares: {named}"
    if quarantines := [errors_path(path).name for path in paths if errors_path(path).exists()]:
        message += (
            f". See {', '.join(quarantines[:_NAMED])} for what is quarantined; shares transcribed with "
            "--in-place keep those lines"
        )
    raise MergeError(message)


def _line_at(file: BinaryIO, start: int) -> int:
    file.seek(0)
    return next(line.number for line in read_lines(file) if line.span[0] == start)


def _cause(error: OSError) -> str:
    if error.errno == errno.EMFILE:
        return "there are more shares than files that may be open at once; raise that with `ulimit -n`"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)

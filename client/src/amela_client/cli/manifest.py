"""``amela-client manifest``: make, check, split and merge manifests."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from amela_client.cluster.array_run import ArrayRun
from amela_client.cluster.slurm_output import compact_tasks
from amela_client.errors import ManifestError, MergeError
from amela_client.manifest import Manifest
from amela_client.manifest_build import build_manifest
from amela_client.manifest_check import Finding, check
from amela_client.share_merge import merge_shares
from amela_client.vad_report import write_csv

SOME_LEFT_OUT = 3
_NAMED = 10

app = typer.Typer(help="Make, check, split and merge manifests.", no_args_is_help=True)

_Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")]
_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What `split` made.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("build")
def build_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to look for recordings in, at any depth.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Manifest to write.")],
) -> None:
    """Make a manifest of all recordings below a folder.

    Paths are absolute. Durations of WAV and FLAC files come from their headers; others have none, which is
    fine. Exit code 3: some recordings cannot be in a manifest, and are named.
    """
    report = build_manifest(folder, output)
    for name, why in report.left_out:
        typer.echo(f"left out: {name}: {why}", err=True)
    print(
        f"{output}: {report.recordings:,} recordings, {report.seconds / 3600:,.2f} h"
        + (f" and {report.without_duration:,} of unknown duration" if report.without_duration else "")
    )
    if report.left_out:
        raise typer.Exit(SOME_LEFT_OUT)


@app.command("validate")
def validate_command(
    manifest: _Manifest,
    strict: Annotated[bool, typer.Option("--strict", help="Relative paths are wrong.")] = False,
    check_files: Annotated[
        bool, typer.Option("--check-files", help="Look whether the files are there.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Name everything that is wrong with a manifest, each with its line. Exit code 1: something is."""
    faults: list[Finding] = []
    lines = wrong = 0
    warnings: tuple[str, ...] = ()
    error = None
    try:
        source = Manifest(manifest, strict=strict)
        for item in source:
            lines += 1
            finding = check(item, files=check_files)
            if finding is None:
                continue
            wrong += 1
            if as_json:
                faults.append(finding)
            else:
                print(f"{manifest}:{finding.line}: {finding.reason}: {finding.message}")
        warnings = source.warnings
    except ManifestError as problem:
        error = str(problem)
    if as_json:
        found = {"manifest": str(manifest), "lines": lines, "faults": [asdict(fault) for fault in faults]}
        print(json.dumps({**found, "warnings": warnings, "error": error}, indent=2))
    else:
        for warning in warnings:
            print(f"{manifest}: warning: {warning}")
        print(error or f"{manifest}: {lines:,} lines, {wrong:,} of them wrong")
    if wrong or error:
        raise typer.Exit(1)


@app.command("split")
def split_command(
    manifest: _Manifest,
    splits: Annotated[int, typer.Option("--splits", min=1, help="Number of shares.")],
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the shares; made if it is not there."),
    ] = Path("splits"),
) -> None:
    """Split a manifest into shares for the tasks of a job array.

    ```
    amela-client manifest split data.json --splits 30 -o splits
    sbatch --array=0-29 slurm/array.slurm transcribe splits
    amela-client manifest merge splits -o done.json
    ```

    Line i goes to share i modulo the number of shares: STEM_split_00.json, STEM_split_01.json, …
    """
    run = ArrayRun.split(Manifest(manifest), splits, folder)
    print(f"{splits} shares: {folder / run.share(0).name} to {run.share(splits - 1).name}")


@app.command("tasks")
def tasks_command(folder: _Folder, as_json: _Json = False) -> None:
    """Say how far each task of a job array is, and which have to run again."""
    run = ArrayRun.open(folder)
    states = run.states()
    unfinished = compact_tasks(state.task for state in states if not state.done)
    if as_json:
        tasks = [asdict(state) | {"state": state.word} for state in states]
        print(json.dumps({"manifest": str(run.manifest), "tasks": tasks, "unfinished": unfinished}, indent=2))
        return
    for state in states:
        print(f"{state.task:>5}  {state}")
    done = sum(state.done for state in states)
    print(
        f"{done} of {run.tasks} tasks are done"
        + (f"; run the others: --array={unfinished}" * bool(unfinished))
    )


@app.command("merge")
def merge_command(
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|PATTERN", help="What `split` made, or results like 'done_task_*_of_30.json'."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Table to write as well, of results of vad.")
    ] = None,
) -> None:
    """Put the results of shares together, in the order of the manifest that was split.

    What tasks quarantined goes to OUT.errors.jsonl. A task that is not done, and an entry that is missing or
    there twice, is an error that names it, and nothing is written.

    Exit code 0: all entries have results; 3: some are quarantined; 1: an error.
    """
    report = merge_shares([name for pattern in patterns for name in _results(pattern)], output)
    print(f"{output}: {report.lines:,} lines of {report.shares} shares")
    for name, models in report.models.items():
        if len(models) > 1:
            typer.echo(f"warning: {name} differs between lines: {', '.join(models)}", err=True)
    if table is not None:
        write_csv(output, table)
    if report.errors is not None:
        print(f"{output.with_name(report.errors.name)}: {report.quarantined:,} entries quarantined")
        raise typer.Exit(SOME_LEFT_OUT)


def _results(pattern: str) -> list[str]:
    """Return the results of a folder's tasks; a pattern is left to `merge_shares`."""
    if not Path(pattern).is_dir():
        return [pattern]
    run = ArrayRun.open(Path(pattern))
    unfinished = [state for state in run.states() if not state.done]
    if unfinished:
        named = "; ".join(f"task {state.task} is {state}" for state in unfinished[:_NAMED])
        more = "; …" if len(unfinished) > _NAMED else ""
        raise MergeError(
            f"{len(unfinished)} of {run.tasks} tasks in {pattern} are not done: {named}{more}. Run them again"
            f" with --array={compact_tasks(state.task for state in unfinished)}"
        )
    return [str(run.result(task)) for task in range(run.tasks)]

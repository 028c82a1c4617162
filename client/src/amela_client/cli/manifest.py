"""``amela-client manifest``: make, check, split and merge manifests."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from amela_client.errors import ManifestError
from amela_client.manifest import Manifest
from amela_client.manifest_build import build_manifest
from amela_client.manifest_check import Finding, check
from amela_client.shares import merge_shares, split

SOME_LEFT_OUT = 3

app = typer.Typer(help="Make, check, split and merge manifests.", no_args_is_help=True)

_Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")]


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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

    Line i goes to share i modulo the number of shares: STEM_split_00.json, STEM_split_01.json, …
    """
    shares = split(Manifest(manifest), splits, folder)
    print(f"{len(shares)} shares: {shares[0]} to {shares[-1].name}")


@app.command("merge")
def merge_command(
    patterns: Annotated[
        list[str], typer.Argument(metavar="PATTERN", help="Shares, like 'output/*_split_*.json'.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
) -> None:
    """Put shares together again, in the order of the manifest that was split.

    A line that is missing or there twice is an error that names it, and nothing is written.
    """
    lines, shares = merge_shares(patterns, output)
    print(f"{output}: {lines:,} lines of {shares} shares")

"""What the commands that take a manifest through a stage have in common."""

import asyncio
import json
import logging
import shlex
import signal
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar, cast

import typer
from rich.console import Console

from amela_client.cli.connection import Connection
from amela_client.cli.standard_error import StandardError
from amela_client.cluster.array_run import whole_manifest
from amela_client.errors import ClientError, OutputError
from amela_client.manifest import Manifest
from amela_client.merge import check_output
from amela_client.mirror import Mirror
from amela_client.progress import Tally, clock, display_for, shown
from amela_client.run import RunSummary, journal_path, run_manifest
from amela_client.stages import Stage
from amela_client.task_share import ManifestShare, Share

SOME_QUARANTINED = 3

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AnyT = TypeVar("AnyT")

Channel = Annotated[
    int | None,
    # The most that a WAV header can say.
    typer.Option(min=0, max=65_535, help="Channel to listen to, from 0. Default: the mean of all."),
]
Tasks = Annotated[
    int | None,
    typer.Option(
        "--tasks", min=1, help="Work on one share of MANIFEST only, of so many; the output's name says which."
    ),
]
TaskId = Annotated[
    int | None,
    typer.Option(
        "--task-id",
        min=0,
        help="Which share, from 0: entry i is in share i modulo --tasks. `manifest merge` puts the outputs"
        " together.",
    ),
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for the WAV files.",
    ),
]
Listing = Annotated[
    Path | None,
    typer.Option(
        "--manifest", metavar="FILE", help="Where the list of the WAV files goes. Default: DIR/manifest.json."
    ),
]
Remake = Annotated[bool, typer.Option("--force", help="Make files that are there again.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take relative paths for faults.")]
MixModels = Annotated[
    bool, typer.Option("--mix-models", help="Let servers with different models answer in one run.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Drop what a stopped run has done, and start over.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print what the run came to as JSON.")]


@dataclass(frozen=True)
class Job:
    """A run as it was asked for."""

    stage: Stage
    manifest: Path
    output: Path
    in_place: bool = False
    strict: bool = False
    restart: bool = False
    as_json: bool = False
    share: Share | None = None

    def open_manifest(self) -> Manifest:
        """Open the manifest, or this run's share of it."""
        if self.share is None:
            return Manifest(self.manifest, strict=self.strict)
        return ManifestShare(self.manifest, self.share, strict=self.strict)


class StoppedError(ClientError):
    """A signal ended the command."""

    def __init__(self, number: signal.Signals, message: str = "") -> None:
        super().__init__(message or f"stopped by {number.name}")
        self.number = number


def share_of(tasks: int | None, task_id: int | None) -> Share | None:
    """Make a share of what was typed.

    Raises
    ------
    typer.BadParameter
        There is no such share.
    """
    if tasks is None and task_id is None:
        return None
    if tasks is None or task_id is None:
        raise typer.BadParameter("--tasks and --task-id go together: how many shares, and which of them")
    if task_id >= tasks:
        raise typer.BadParameter(f"--task-id {task_id}: {tasks} tasks have the numbers 0 to {tasks - 1}")
    return Share(task_id, tasks)


def plan_files(manifest: Path, folder: Path, suffix: str, *, strict: bool) -> Mirror:
    """Say where the files of results go, and make their folder.

    Those of a share go where those of the whole manifest would.

    Raises
    ------
    ManifestError
        As `Mirror.plan` and `whole_manifest` do.
    OutputError
        The folder cannot be made.
    """
    mirror = Mirror.plan(Manifest(whole_manifest(manifest), strict=strict), folder, suffix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from None
    return mirror


def error_console(*, quiet: bool = False) -> Console:
    """Return a console on standard error that also gets the library's warnings."""
    file = cast("IO[str]", StandardError())
    console = Console(file=file, quiet=quiet, highlight=False, markup=False, soft_wrap=True)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(f"warning: {record.getMessage()}")

    logger = logging.getLogger("amela_client")
    logger.handlers = [Handler(logging.WARNING)]
    logger.propagate = False
    return console


def run_job(job: Job, connection: Connection, console: Console) -> RunSummary:
    """Do what was asked for, and show progress and a summary.

    Raises
    ------
    ClientError
        As `run_manifest` does; `StoppedError` after Ctrl-C or SIGTERM.
    """
    service = job.stage.service
    tally = Tally(phase=f"starting {service.command} on this machine" if connection.local else "starting")

    summary: RunSummary | None = None

    async def run() -> None:
        nonlocal summary
        manifest = job.open_manifest()
        check_output(manifest, job.output, in_place=job.in_place, stage=job.stage.name)
        async with shown(tally, display_for(console, job.stage.name)), connection.open(service) as client:
            try:
                summary = await run_manifest(
                    client,
                    job.stage,
                    manifest,
                    job.output,
                    in_place=job.in_place,
                    restart=job.restart,
                    mix_models=connection.mix_models,
                    tally=tally,
                )
            except asyncio.CancelledError:
                tally.phase = "stopping; once more to stop at once"
                raise

    try:
        until_signal(run())
    except StoppedError as stop:
        if summary is None:
            raise StoppedError(stop.number, f"{stop}. {_how_to_go_on(job, tally)}") from None
    assert summary is not None
    for line in describe(summary):
        console.print(line)
    if job.as_json:
        print(json.dumps(_as_json(summary), indent=2))
    return summary


def run_and_exit(job: Job, connection: Connection, *, quiet: bool) -> None:
    """Do what was asked for, and end the command with the exit code that says what it came to.

    Raises
    ------
    ClientError
        As `run_job` does.
    typer.Exit
        Some entries are quarantined.
    """
    if run_job(job, connection, error_console(quiet=quiet)).quarantined:
        raise typer.Exit(SOME_QUARANTINED)


def until_signal(work: Coroutine[Any, Any, AnyT]) -> AnyT:
    """Run `work`. A signal that asks to stop cancels it, so that it ends in order; a second one cancels that.

    Raises
    ------
    StoppedError
        If a signal came.
    """

    async def supervise() -> AnyT:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        received: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()
            if len(received) > 1:
                # What does not end even now is held up by the system; the next signal kills.
                for each in watched:
                    loop.remove_signal_handler(each)

        # What whoever started the program wants ignored stays ignored: nohup does that to SIGHUP.
        watched = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in watched:
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            if not received:
                raise
            raise StoppedError(received[0]) from None

    return asyncio.run(supervise())


def describe(summary: RunSummary) -> list[str]:
    """Say what a run came to, in a few lines."""
    quarantined = sum(summary.quarantined.values())
    parts = [f"{summary.results:,} entries with results"]
    if summary.resumed:
        parts.append(f"{summary.resumed:,} settled by the run before this one")
    if summary.skipped:
        parts.append(f"{summary.skipped:,} that had theirs before")
    if quarantined:
        parts.append(f"{quarantined:,} quarantined")
    lines = [f"{summary.output}: {', '.join(parts)}"]
    if summary.audio_seconds:
        rtfx = summary.audio_seconds / summary.elapsed
        spent = f"{clock(summary.audio_seconds)} of audio in {clock(summary.elapsed)}, {rtfx:.1f}× real time"
        lines[0] += f"; {spent}"
    if summary.gaps:
        lines.append(f"{summary.gaps:,} of the results lack a piece: text_gaps in their lines says which")
    if summary.errors:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.quarantined.items())
        lines.append(f"{summary.errors}: {reasons}")
    if summary.passing:
        lines.append(f"{summary.passing:,} of those may succeed later: give the same command again to try")
    return lines


def _as_json(summary: RunSummary) -> dict[str, object]:
    fields = asdict(summary) | {"models": [model._asdict() for model in summary.models]}
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def _how_to_go_on(job: Job, tally: Tally) -> str:
    journal = journal_path(job.output)
    if not journal.exists():
        return "Nothing was done yet"
    settled = f"{tally.done + tally.failed:,} of {tally.entries:,} entries in this run"
    command = shlex.join(["amela-client", *(word for word in sys.argv[1:] if word != "--restart")])
    return f"The journal {journal} has what is done: {settled}. To go on:\n  {command}"

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
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from amela_client.cli.connection import Connection
from amela_client.errors import ClientError
from amela_client.manifest import Manifest
from amela_client.merge import check_output
from amela_client.progress import Tally, clock, display_for, shown
from amela_client.run import RunSummary, journal_path, run_manifest
from amela_client.stages import Stage

SOME_QUARANTINED = 3

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AnyT = TypeVar("AnyT")

Channel = Annotated[
    int | None,
    # The most that a WAV header can say.
    typer.Option(min=0, max=65_535, help="Channel to listen to, from 0. Default: the mean of all."),
]
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


class StoppedError(ClientError):
    """A signal ended the command."""

    def __init__(self, number: signal.Signals, message: str = "") -> None:
        super().__init__(message or f"stopped by {number.name}")
        self.number = number


def error_console(*, quiet: bool = False) -> Console:
    """Return a console on standard error that also gets the library's warnings."""
    console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)

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
        manifest = Manifest(job.manifest, strict=job.strict)
        check_output(manifest, job.output, in_place=job.in_place)
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

"""How launches stand, as commands show it: once, or again and again while somebody waits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.live import Live

from amela_client.cli.output import plain, table
from amela_client.cli.servers import capacity_of, device_of, model_of
from amela_client.cluster.standing import JobStanding, LaunchStanding
from amela_client.cluster.verdict import State
from amela_client.progress import clock
from amela_client.results import ServerStatus

COLUMNS = (
    "job",
    "state",
    "node",
    "address",
    "model",
    "device",
    "batch",
    "at once + queue",
    "in the queue",
    "to start",
    "ends in",
    "why",
)
_WAITING = ("job", "state", "node", "address", "in the queue", "to start", "why")


def rows(jobs: Iterable[JobStanding], now: float, columns: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Lay out jobs, with a row for each server of one that has several."""
    cells = [_cells(job, server, now) for job in jobs for server in job.servers or (None,)]
    return [[row[column] for column in columns] for row in cells]


def as_json(standing: LaunchStanding) -> dict[str, object]:
    """Make one flat object of a launch and how it stands."""
    fields = plain(standing)
    assert isinstance(fields, dict)
    launch = fields.pop("launch")
    return {"name": standing.launch.name, **launch, **fields}


class View(Protocol):
    """Shows how the jobs of a launch stand, again and again."""

    def update(self, jobs: Sequence[JobStanding], now: float) -> None:
        """Show how they stand now."""
        ...

    def close(self) -> None:
        """Leave the screen to others."""
        ...


class TableView:
    """A table that stays in its place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def update(self, jobs: Sequence[JobStanding], now: float) -> None:
        """Draw the table anew."""
        self._live.update(table(_WAITING, rows(jobs, now, _WAITING)), refresh=True)

    def close(self) -> None:
        """Leave the table where it is."""
        self._live.stop()


class LineView:
    """A line for each change, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before: Mapping[str, str] = {}

    def update(self, jobs: Sequence[JobStanding], now: float) -> None:
        """Write what has changed."""
        lines = {job.job: _line(job) for job in jobs}
        for job, line in lines.items():
            if self._before.get(job) != line:
                self._console.print(line)
        self._before = lines

    def close(self) -> None:
        """Do nothing: the lines stay."""


def view_for(console: Console) -> View:
    """Return what suits the console: a table on a terminal, lines elsewhere."""
    return TableView(console) if console.is_terminal else LineView(console)


def _cells(job: JobStanding, server: ServerStatus | None, now: float) -> dict[str, str]:
    return {
        "job": job.job,
        "state": job.state.value,
        "node": job.node,
        "address": server.endpoint if server else "",
        "model": model_of(server) if server else "",
        "device": device_of(server) if server else "",
        "batch": f"{server.batch_seconds:g} s" if server and server.batch_seconds else "",
        "at once + queue": capacity_of(server) if server else "",
        "in the queue": _time(job.queued),
        "to start": _time(job.starting),
        "ends in": _time(max(0.0, job.ends - now) if job.ends is not None else None),
        "why": job.words,
    }


def _line(job: JobStanding) -> str:
    line = f"job {job.job}: {job.state.value}"
    if job.words:
        line += f", {job.words}"
    if job.state is State.STARTING and job.node:
        line += f" on {job.node}"
    if job.state is State.READY:
        times = {"in the queue": job.queued, "to start": job.starting}
        known = [f"{clock(seconds)} {name}" for name, seconds in times.items() if seconds is not None]
        line += f" ({', '.join(known)})" if known else ""
    return line


def _time(seconds: float | None) -> str:
    return "" if seconds is None else clock(seconds)

"""How far a run is, by audio seconds: a bar on a terminal, a plain line now and then elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

PLAIN_INTERVAL_SECONDS = 10.0
_TERMINAL_INTERVAL_SECONDS = 0.2
# Slower, and no end is in sight.
_SLOWEST_RTFX = 1e-6


@dataclass
class Tally:
    """Counts of one run. Entries that were done before it began are not among them.

    Attributes
    ----------
    entries
        Entries to work on.
    known_seconds, unknown_entries
        Audio in the entries whose length the manifest says, and how many do not say it.
    done, failed
        Entries with a result, and entries without one for good.
    done_seconds
        Audio in the entries that are done, as the servers measured it.
    settled_seconds
        Audio in the entries that are done or failed, as the manifest says it.
    settled_unknown
        Entries of unknown length among those.
    count_servers
        Counts the servers in use now.
    phase
        What goes on instead of calls; empty while calls are made.
    """

    entries: int = 0
    known_seconds: float = 0.0
    unknown_entries: int = 0
    done: int = 0
    failed: int = 0
    done_seconds: float = 0.0
    settled_seconds: float = 0.0
    settled_unknown: int = 0
    count_servers: Callable[[], int] = lambda: 0
    phase: str = "starting"
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def add(self, seconds: float | None) -> None:
        """Count an entry to work on, and its length if that is known."""
        self.entries += 1
        self.known_seconds += seconds or 0.0
        self.unknown_entries += seconds is None

    def settle(self, seconds: float | None, measured: float | None) -> None:
        """Count an entry that is done, with its measured length, or that failed, with None."""
        self.settled_seconds += seconds or 0.0
        self.settled_unknown += seconds is None
        self.done += measured is not None
        self.failed += measured is None
        self.done_seconds += measured or 0.0


@dataclass(frozen=True)
class Estimate:
    """What can be said about a run's end.

    Attributes
    ----------
    total_seconds, left_seconds
        Audio in the whole run, and in what is not settled.
    guessed
        Whether entries of unknown length are in it, counted as long as the average of those done.
    rtfx
        Seconds of audio done in a second: the inverse of the real-time factor.
    eta
        Seconds until the end. None as long as nothing is done.
    """

    total_seconds: float
    left_seconds: float
    guessed: bool
    rtfx: float
    eta: float | None


def estimate(tally: Tally, elapsed: float) -> Estimate:
    """Tell from `elapsed` seconds of a run how large it is and how long it will take."""
    typical = tally.done_seconds / tally.done if tally.done else 0.0
    unknown_left = tally.unknown_entries - tally.settled_unknown
    left = max(0.0, tally.known_seconds - tally.settled_seconds) + unknown_left * typical
    rtfx = tally.done_seconds / elapsed if elapsed > 0 else 0.0
    eta = left / rtfx if rtfx > _SLOWEST_RTFX and left > 0 else None
    if tally.done + tally.failed == tally.entries:
        eta = 0.0
    return Estimate(tally.done_seconds + left, left, unknown_left > 0, rtfx, eta)


def describe(tally: Tally, elapsed: float) -> str:
    """Say in one line how far a run is."""
    if tally.phase:
        return tally.phase
    guess = estimate(tally, elapsed)
    about = "~" if guess.guessed else ""
    parts = [
        f"{tally.done + tally.failed:,}/{tally.entries:,} entries",
        f"{clock(tally.done_seconds)}/{about}{clock(guess.total_seconds)} of audio",
        f"{guess.rtfx:.1f}× real time",
    ]
    if guess.eta is None or guess.eta > 0:
        parts.append("time left not known yet" if guess.eta is None else f"{about}{clock(guess.eta)} left")
    servers = tally.count_servers()
    parts.append(f"{servers} server{'s' * (servers != 1)}")
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Write a time as ``H:MM:SS``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class Display(Protocol):
    """Shows a tally again and again."""

    interval: float
    """Seconds between two updates."""

    def update(self, tally: Tally) -> None:
        """Show how far the run is."""
        ...

    def close(self, tally: Tally) -> None:
        """Show how far the run came, and leave the screen to others."""
        ...


class TerminalDisplay:
    """A bar that moves by audio seconds, with the counts below it."""

    interval = _TERMINAL_INTERVAL_SECONDS

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def update(self, tally: Tally) -> None:
        """Move the bar."""
        counts = Text(describe(tally, tally.elapsed), style="dim")
        self._live.update(Group(self._bar(tally), counts), refresh=True)

    def close(self, tally: Tally) -> None:
        """Leave the bar where it came to; the summary of the run takes the place of the counts."""
        self._live.update(self._bar(tally), refresh=True)
        self._live.stop()

    def _bar(self, tally: Tally) -> Table:
        total = estimate(tally, tally.elapsed).total_seconds
        share = tally.done_seconds / total if total else 0.0
        line = Table.grid(Column(), Column(ratio=1), Column(justify="right"), padding=(0, 1), expand=True)
        line.add_row(
            self._title, ProgressBar(total or None, tally.done_seconds, pulse=not total), f"{share:.0%}"
        )
        return line


class PlainDisplay:
    """A line for logs and pipes."""

    interval = PLAIN_INTERVAL_SECONDS

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title

    def update(self, tally: Tally) -> None:
        """Write a line."""
        line = f"{self._title}: {describe(tally, tally.elapsed)}"
        self._console.print(line, soft_wrap=True, highlight=False)

    def close(self, tally: Tally) -> None:
        """Do nothing: the lines stay, and the run's summary says the rest."""


def display_for(console: Console, title: str) -> Display:
    """Return what suits the console: a bar on a terminal, lines elsewhere."""
    return TerminalDisplay(console, title) if console.is_terminal else PlainDisplay(console, title)


@asynccontextmanager
async def shown(tally: Tally, display: Display) -> AsyncIterator[None]:
    """Keep `display` up to date inside the block, and close it at its end."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(display.interval)
            display.update(tally)

    task = asyncio.create_task(repeat(), name="progress")
    try:
        yield
    finally:
        task.cancel()
        display.close(tally)

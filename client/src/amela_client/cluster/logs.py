"""The last lines of logs, and those that are still to come."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from amela_client.cluster.launch import Launch
from amela_client.errors import LaunchError

_BLOCK_BYTES = 1 << 16
_POLL_SECONDS = 0.5


class LogLine(NamedTuple):
    """A line of a job's log."""

    job: str
    text: str


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log, reading no more of it than they take; none if there is no log yet."""
    try:
        with path.open("rb") as file:
            file.seek(_start_of_last(file, count))
            return _lines(file.read())
    except FileNotFoundError:
        return []


def jobs_with_logs(launch: Launch, job: str | None = None) -> list[str]:
    """Return the jobs whose logs to show: one, or all of a launch, oldest first.

    Raises
    ------
    LaunchError
        If the launch has no such job.
    """
    jobs = list(launch.jobs())
    if job is None:
        return jobs
    if job not in jobs:
        raise LaunchError(f"{launch.name} has no job {job}; it has: {', '.join(jobs) or 'none'}")
    return [job]


async def follow(
    launch: Launch, *, job: str | None, lines: int, present: Callable[[], Collection[str]]
) -> AsyncGenerator[LogLine, None]:
    """Give the last lines of each log, then new ones as they come, until all jobs are over.

    Parameters
    ----------
    job
        The one job to follow. None: all of the launch, also those that begin later.
    present
        Tells which jobs are not over. Blocks.
    """
    readers: dict[str, _Reader] = {}
    while True:
        going_on = await asyncio.to_thread(present)
        # A launch that is taken down forgets its jobs.
        for each in [] if job in readers else jobs_with_logs(launch, job):
            if each not in readers:
                readers[each] = _Reader(launch.log(each), lines)
        for each, reader in readers.items():
            for text in reader.read():
                yield LogLine(each, text)
        if not any(each in going_on for each in readers):
            return
        await asyncio.sleep(_POLL_SECONDS)


class _Reader:
    def __init__(self, path: Path, lines: int) -> None:
        self._path = path
        self._lines = lines
        self._position: int | None = None

    def read(self) -> Iterator[str]:
        """Give what is new, up to the end of its last whole line."""
        try:
            with self._path.open("rb") as file:
                if self._position is None:
                    self._position = _start_of_last(file, self._lines)
                file.seek(self._position)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        yield from _lines(whole)


def _lines(content: bytes) -> list[str]:
    # Not splitlines, which breaks at more characters than a log does.
    return content.decode(errors="replace").removesuffix("\n").split("\n") if content else []


def _start_of_last(file: BinaryIO, count: int) -> int:
    """Find where the last lines begin; one that is not complete counts."""
    position = size = file.seek(0, io.SEEK_END)
    if not size or not count:
        return size
    content = b""
    # The end of the last line is none between two.
    while position > 0 and content[:-1].count(b"\n") < count:
        step = min(_BLOCK_BYTES, position)
        position -= step
        file.seek(position)
        content = file.read(step) + content
    parts = content[:-1].rsplit(b"\n", count)
    return position + len(parts[0]) + 1 if len(parts) > count else 0

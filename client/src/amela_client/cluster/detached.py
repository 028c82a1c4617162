"""Processes that outlive the one that started them, and are recognised by whoever looks for them later."""

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class _Status(NamedTuple):
    state: str
    session: int
    ticks: int


@dataclass(frozen=True)
class Detached:
    """A process that leads a session of its own, with its descendants. Its fields can be kept in a file."""

    pid: int
    ticks: int
    """When the kernel started it, in clock ticks since the machine did: none has this and its pid."""
    mark: str
    """``NAME=value`` in the environment of it and its descendants, as of nobody else."""
    host: str
    started: float
    """Seconds since the epoch."""

    @classmethod
    def start(cls, command: list[str], environment: Mapping[str, str], mark: str, log: Path) -> "Detached":
        """Start a command that appends all it says to a log.

        Raises
        ------
        OSError
            The command is not there, the log cannot be written, or there is no room for a process.
        """
        name, _, value = mark.partition("=")
        pid = os.posix_spawn(
            command[0],
            command,
            {**environment, name: value},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            # Python ignores it, and children inherit that.
            setsigdef=[signal.SIGPIPE],
        )
        # Even one that has ended already is known until its parent, which is this process, asks how.
        status = _status(pid)
        assert status is not None
        return cls(pid, status.ticks, mark, socket.gethostname(), time.time())

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine; of others on other machines nothing can be seen."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether the process itself lives."""
        # If it is a child of this process, this lets it go once it has ended.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        status = _status(self.pid)
        return status is not None and status.state != "Z" and status.ticks == self.ticks

    @property
    def has_left(self) -> bool:
        """Whether descendants live on without it."""
        return not self.is_alive and any(self._descendants())

    def signal(self, number: signal.Signals, *, everyone: bool = False) -> None:
        """Send a signal to it, or to all of its group; if it is gone, to those that live on without it."""
        with suppress(ProcessLookupError):
            if self.is_alive and not everyone:
                os.kill(self.pid, number)
            elif self.is_alive or self.has_left:
                os.killpg(self.pid, number)

    def _descendants(self) -> Iterator[int]:
        mark = self.mark.encode()
        for folder in _PROC.glob("[0-9]*"):
            status = _status(int(folder.name))
            if status is not None and status.session == self.pid and status.state != "Z":
                # Of other users' processes, this cannot be read.
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)


def _status(pid: int) -> _Status | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # proc(5): the second field is a name in parentheses, which may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return _Status(state=fields[0], session=int(fields[3]), ticks=int(fields[19]))

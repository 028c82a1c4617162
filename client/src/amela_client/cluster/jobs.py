"""What a launcher is asked, and what it answers, whatever runs the jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


class JobState(Enum):
    """Where a job is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    """Told to end, and not gone yet."""
    ENDED = "ended"


@dataclass(frozen=True)
class Job:
    """A job as its launcher knows it. Times are seconds since the epoch; None where it does not tell."""

    id: str
    """``123``, or ``123_4`` for task 4 of an array."""
    name: str
    state: JobState
    reason: str = ""
    """Why it waits (Resources, Priority, …) or how it ended (FAILED, TIMEOUT, …), in the launcher's word."""
    node: str = ""
    submitted: float | None = None
    started: float | None = None
    ends: float | None = None
    """When its time is up."""
    restarts: int | None = None
    exit_code: int | None = None
    """128 and the number of the signal that ended it, or what it exited with."""


class Launcher(Protocol):
    """Runs scripts as jobs. Its methods block, and raise `ClientError` if it cannot be reached."""

    name: str
    """As ``--launcher`` takes it."""

    def submit(self, script: Path, *, arguments: Sequence[str] = ()) -> str:
        """Hand in a script with ``#SBATCH`` lines, with options for `sbatch` besides; answer the job's id.

        Raises
        ------
        SubmissionError
            If it is refused; the message has the launcher's words and what to do.
        """
        ...

    def jobs(self, names: Sequence[str]) -> list[Job]:
        """List this user's jobs of exactly these names that are still known as waiting, running or ending."""
        ...

    def past(self, ids: Sequence[str]) -> dict[str, Job]:
        """Tell how jobs ended, for those that are remembered; without accounting, few or none."""
        ...

    def kill(self, ids: Sequence[str]) -> None:
        """End jobs at once. Those that are gone are passed over."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask jobs to end: they get SIGTERM and time to drain. Those that are gone are passed over."""
        ...

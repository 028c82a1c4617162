"""How far a task of a job array is, as the files tell that it leaves behind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from amela_client.journal_records import Failure, parse_record
from amela_client.merge import errors_path
from amela_client.run import journal_path


@dataclass(frozen=True)
class TaskState:
    """How far a task is.

    Attributes
    ----------
    task
        Its number in the array.
    entries
        In its share.
    done
        Whether its results are written.
    settled
        Entries with a result, or with a failure that no other try mends.
    quarantined
        Entries without a result, of a task that is done.
    passing
        Those that another try may mend.
    """

    task: int
    entries: int
    done: bool = False
    settled: int = 0
    quarantined: int = 0
    passing: int = 0

    @classmethod
    def of(cls, task: int, entries: int, result: Path) -> Self:
        """Look at what the task has left where its `result` goes.

        Raises
        ------
        OSError
            A file cannot be read.
        """
        settled, passing = _tally(journal_path(result))
        if not result.exists():
            return cls(task, entries, settled=settled, passing=passing)
        quarantined = _lines(errors_path(result))
        return cls(task, entries, True, entries - passing, quarantined, passing)

    @property
    def word(self) -> str:
        """``done``, ``unfinished`` or ``not started``."""
        if self.done:
            return "done"
        return "unfinished" if self.settled or self.passing else "not started"

    @property
    def left(self) -> int:
        """Entries that the task would still work on."""
        return self.passing if self.done else self.entries - self.settled

    @property
    def left_to_run(self) -> bool:
        """Whether running the task can bring results that are not there."""
        return not self.done or self.passing > 0

    def __str__(self) -> str:
        if not self.done:
            return f"{self.word}, {self.settled} of {self.entries} entries" if self.settled else self.word
        words = self.word
        if self.quarantined:
            words += f", {self.quarantined} of {self.entries} entries quarantined"
        if self.passing:
            words += f"; {self.passing} of them may succeed in another run of the task"
        return words


def _tally(journal: Path) -> tuple[int, int]:
    """Count the entries that are settled, and those whose last failure may pass."""
    passing: dict[int, bool] = {}
    try:
        with journal.open("rb") as lines:
            next(lines, None)
            for line in lines:
                # One that is being written has no end yet.
                if line.endswith(b"\n") and (record := parse_record(line)):
                    index, outcome = record
                    passing[index] = isinstance(outcome, Failure) and outcome.transient
    except FileNotFoundError:
        return 0, 0
    failed = sum(passing.values())
    return len(passing) - failed, failed


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0

"""What one run has in hand: tasks pulled from its source that wait for a server."""

import heapq
from bisect import bisect, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from amela_client.errors import CallError

ResultT = TypeVar("ResultT")

# Between two pulls the event loop has to see to answers.
_SLICE_TASKS = 64
_SLICE_SECONDS = 0.01


class Task(NamedTuple):
    """One call to make."""

    key: int
    """Whatever the caller knows it by."""
    request: Message
    seconds: float = 0.0
    """Length of the audio; 0: unknown. Long ones go first, and get a later deadline."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[ResultT]):
    """What became of one task: a response, or the error that ended it."""

    key: int
    response: ResultT | None
    error: CallError | None
    endpoint: str
    """``HOST:PORT`` of the server that spoke last."""
    tries: int
    """Tries that were made, the last one included."""
    seconds: float
    """As in the task."""


@dataclass(slots=True, eq=False)
class Job:
    """A task on its way to an outcome."""

    task: Task
    size: int
    """Bytes of the request."""
    tries: int = 0
    """Tries that have failed."""
    avoid: set[str] = field(default_factory=set)
    """Servers that have failed it."""
    raced: bool = False
    """A second server has been given it as well."""


class Backlog:
    """Jobs of one run that wait: the longest first, but failed ones before all others.

    Parameters
    ----------
    tasks
        Where they come from, as far as is needed. None among them says only that there may be more.
    lookahead
        Most tasks to hold; the longest of so many goes first.
    most_bytes
        Most bytes of requests to hold.
    """

    def __init__(self, tasks: Iterable[Task | None], lookahead: int, most_bytes: int) -> None:
        self._tasks: Iterator[Task | None] = iter(tasks)
        self._lookahead = lookahead
        self._most_bytes = most_bytes
        self._bytes = 0
        # Shortest first; of equally long ones the first to come last, so that it is the first to go.
        self._waiting: list[tuple[float, int, Job]] = []
        self._retries: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._serial = 0
        self.seconds = 0.0
        """Audio of the jobs that wait, failed ones aside."""
        self.exhausted = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._retries) + len(self._later)

    @property
    def wants_more(self) -> bool:
        """Whether there is room for another slice of tasks, or a pull that found none has to go on."""
        return (
            not self.exhausted
            and len(self) <= self._lookahead - _SLICE_TASKS
            and self._bytes < self._most_bytes
        )

    def pull(self) -> None:
        """Take a slice of tasks from the source: fewer than there is room for if that takes long."""
        count = 0
        until = perf_counter() + _SLICE_SECONDS
        for task in self._tasks:
            if task is not None:
                job = Job(task, task.request.ByteSize())
                self._serial += 1
                self._bytes += job.size
                insort(self._waiting, (task.seconds, -self._serial, job))
                self.seconds += task.seconds
                count += 1
            if count == _SLICE_TASKS or self._bytes >= self._most_bytes or perf_counter() > until:
                return
        self.exhausted = True

    @property
    def shortest(self) -> float | None:
        """Seconds of audio of the shortest job that may go now; None if there is none."""
        waiting = [self._waiting[0][0]] if self._waiting else []
        return min(waiting + [job.task.seconds for job in self._retries], default=None)

    def take(
        self, now: float, longest: float | None, limit: float, suits: Callable[[Job], bool]
    ) -> Job | None:
        """Take the job that goes next: of failed ones the first that suits, or else the longest.

        Parameters
        ----------
        longest
            Most seconds of audio that it should have. If all have more, it is the shortest. None, for a
            server that nothing is known of: one of middling length.
        limit
            Seconds of audio that it must not exceed.
        suits
            Whether a failed job may go.
        """
        while self._later and self._later[0][0] <= now:
            self._retries.append(heapq.heappop(self._later)[2])
        for position, job in enumerate(self._retries):
            if suits(job):
                del self._retries[position]
                self._bytes -= job.size
                return job
        if not self._waiting:
            return None
        if longest is None:
            position = len(self._waiting) // 2
        else:
            position = max(0, bisect(self._waiting, longest, key=_seconds_of) - 1)
        if self._waiting[position][0] > limit:
            position = bisect(self._waiting, limit, key=_seconds_of) - 1
        if position < 0:
            return None
        seconds, _, job = self._waiting.pop(position)
        self.seconds -= seconds
        self._bytes -= job.size
        return job

    def put_back(self, job: Job) -> None:
        """Keep a job that its server did not take."""
        self._bytes += job.size
        self._retries.appendleft(job)

    def retry(self, job: Job, at: float) -> None:
        """Keep a failed job until it may be tried again."""
        self._serial += 1
        self._bytes += job.size
        heapq.heappush(self._later, (at, self._serial, job))


def _seconds_of(item: tuple[float, int, Job]) -> float:
    return item[0]

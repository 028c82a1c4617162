"""A bounded way in: so many requests at work, so many waiting, the rest refused at once."""

import asyncio
import time
from collections import deque
from types import TracebackType

from amela_common.errors import RequestError
from amela_common.server.metrics import Metrics


class Admission:
    """Admits requests first come, first served.

    Use it as ``async with admission.admit():`` around the work of one request. A task that is
    cancelled while it waits, as a call is whose deadline passes, gives its place back.

    Parameters
    ----------
    concurrency
        Requests at work at the same time.
    queue
        Requests that may wait.
    """

    def __init__(self, concurrency: int, queue: int, metrics: Metrics) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self._metrics = metrics
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_seconds = 1.0

    def admit(self) -> "Place":
        """Make a context manager that holds one place; entering raises QUEUE_FULL if there is none."""
        return Place(self)

    async def enter(self) -> None:
        """Wait for a place."""
        if self._running < self.concurrency:
            self._running += 1
            return
        if len(self._waiting) >= self.queue:
            raise RequestError(
                "QUEUE_FULL",
                f"all {self.concurrency} places at work and {self.queue} in the queue are taken:"
                " try again later or on another server",
                retry_after=self._expected_wait(),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        # A server may have several admissions.
        self._metrics.queue_depth.inc()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_over()
            elif turn in self._waiting:
                # Else a place was on offer since, and went on to the next one.
                self._waiting.remove(turn)
            raise
        finally:
            self._metrics.queue_depth.dec()

    def leave(self, seconds: float) -> None:
        """Give the place back after so many seconds of work."""
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1

    def _expected_wait(self) -> float:
        return min(30.0, max(0.05, self._mean_seconds * (len(self._waiting) + 1) / self.concurrency))


class Place:
    """The place of one request, for as long as its context lasts."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = False
        self._since = 0.0

    async def move_to(self, admission: Admission) -> None:
        """Give the place back and wait for one of another admission; raises QUEUE_FULL if there is none."""
        self._leave()
        self._admission = admission
        await self._enter()

    async def _enter(self) -> None:
        await self._admission.enter()
        self._held = True
        self._since = time.monotonic()

    def _leave(self) -> None:
        if self._held:
            self._held = False
            self._admission.leave(time.monotonic() - self._since)

    async def __aenter__(self) -> "Place":
        await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

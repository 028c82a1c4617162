"""A cluster that this machine cannot have: servers without a network, in a time that costs nothing."""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela_client.errors import CallError
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue

T = TypeVar("T")


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to whatever happens next."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 0.0
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def _jump(self, timeout: float | None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits for something that never happens")
        self._now += timeout
        return self._select(0)


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end without ever sleeping."""
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(coroutine)


class FakeServer:
    """A server that works at `speed` seconds of audio a second on each of `concurrency` calls.

    Requests are `DoubleValue`: seconds of audio. Calls beyond `concurrency` wait, first come, first
    served; those beyond `concurrency + queue` are refused.

    Parameters
    ----------
    overhead
        Seconds that each call takes besides.
    """

    def __init__(
        self,
        name: str,
        *,
        speed: float = 1.0,
        concurrency: int = 1,
        queue: int = 64,
        overhead: float = 0.0,
        fingerprint: str = "0123456789abcdef",
    ) -> None:
        self.name = name
        self.speed = speed
        self.overhead = overhead
        self.is_alive = True
        self.is_stopped = False
        self.is_draining = False
        self.drains_at = math.inf
        """When it begins to drain by itself, by the event loop's clock."""
        self.fault: Callable[[float], CallError | None] = lambda seconds: None
        """What goes wrong with audio of so many seconds."""
        self.answered = 0
        self.most_in_flight = 0
        self.concurrency = concurrency
        self._capacity = Capacity(concurrency=concurrency, queue=queue)
        self._fingerprint = fingerprint
        self._places = asyncio.Semaphore(concurrency)
        self._calls: set[asyncio.Task[float]] = set()

    async def probe(self) -> ServerInfo:
        """Ask whether it takes calls, and what it is."""
        if self.is_stopped:
            await asyncio.sleep(3.0)
        if not self.is_alive or self.is_stopped or self.is_draining or self.time_left() <= 0:
            raise CallError("UNAVAILABLE", f"{self.name} is down", transient=True)
        return ServerInfo(capacity=self._capacity, model=Model(fingerprint=self._fingerprint))

    async def call(self, request: Message, timeout: float) -> float:  # noqa: ASYNC109 - as a Server has it
        """Work on one request and answer its seconds."""
        assert isinstance(request, DoubleValue)
        if not self.is_alive:
            raise CallError("UNAVAILABLE", f"{self.name} is down", transient=True)
        if self.is_draining or self.time_left() <= 0:
            raise CallError("DRAINING", f"{self.name} is about to end", transient=True)
        if len(self._calls) >= self._capacity.concurrency + self._capacity.queue:
            raise CallError("QUEUE_FULL", f"{self.name} is full", transient=True, retry_after=1.0)
        work = asyncio.create_task(self._work(request.value))
        self._calls.add(work)
        self.most_in_flight = max(self.most_in_flight, len(self._calls))
        try:
            done, _ = await asyncio.wait((work,), timeout=timeout)
            if not done:
                raise CallError("DEADLINE_EXCEEDED", f"{self.name} took too long", transient=True)
            if work.cancelled():
                raise CallError("UNAVAILABLE", f"{self.name} went away", transient=True)
            return work.result()
        finally:
            work.cancel()
            self._calls.discard(work)

    def time_left(self) -> float:
        """Tell the seconds until it drains by itself."""
        return self.drains_at - asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Break the calls in flight, as a channel that is closed does."""
        for work in self._calls:
            work.cancel()

    def kill(self) -> None:
        """Break every call and refuse new ones."""
        self.is_alive = False
        for work in self._calls:
            work.cancel()

    def stop(self) -> None:
        """Go silent, as a process does that gets SIGSTOP."""
        self.is_stopped = True

    async def _work(self, seconds: float) -> float:
        async with self._places:
            await asyncio.sleep(self.overhead + seconds / self.speed)
        if self.is_stopped:
            await asyncio.Event().wait()
        if error := self.fault(seconds):
            raise error
        self.answered += 1
        return seconds


class FakeSource:
    """A registry of fake servers."""

    def __init__(self, *servers: FakeServer) -> None:
        self.servers = list(servers)

    async def look(self) -> list[FakeServer]:
        """List them."""
        return list(self.servers)

    def describe(self) -> str:
        """Say where it looks."""
        return "a fake cluster"

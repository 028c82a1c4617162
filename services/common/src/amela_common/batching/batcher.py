"""Dynamic batching: items of many callers, gathered for a moment, computed together on one thread."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from amela_common.batching.budget import Budget
from amela_common.batching.device import Device, DeviceThread
from amela_common.batching.fair_queue import FairQueue, Waiting
from amela_common.batching.metrics import BatchMetrics
from amela_common.batching.recovery import BrokenDeviceError, Recovery, Sized
from amela_common.errors import RequestError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items into batches.

    Parameters
    ----------
    compute
        Runs on the device's thread and gives one result for each item of a batch, in order. A
        `RequestError` among the results, or raised for a single item, is that item's own failure.
    max_wait
        How long an item may wait for others while the device is idle, in seconds.
    on_broken
        Called once, with the reason, when the device is lost. Items then fail as ENGINE_LOST.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R | RequestError]],
        thread: DeviceThread,
        device: Device,
        budget: Budget,
        *,
        max_wait: float,
        metrics: BatchMetrics,
        on_broken: Callable[[str], None],
    ) -> None:
        self._thread = thread
        self._max_wait = max_wait
        self._metrics = metrics
        self._on_broken = on_broken
        self._recovery: Recovery[T, R] = Recovery(compute, device, budget, metrics)
        self._queue: FairQueue[_Job[T, R]] = FairQueue()
        self._changed = asyncio.Event()
        self._lost: RequestError | None = None
        self._running: list[Waiting[_Job[T, R]]] = []
        self._loop = asyncio.create_task(self._serve(), name="batcher")

    @property
    def budget(self) -> Budget:
        """What a batch may hold, by all that is known."""
        return self._recovery.budget

    async def submit(self, item: T, *, seconds: float, caller: Hashable, kind: Hashable = None) -> R:
        """Compute one item, in a batch with others of its kind.

        An item whose submitter is cancelled, as the deadline of a call does, is dropped while it waits.

        Parameters
        ----------
        seconds
            Length of the item.
        caller
            Whose item it is: callers get equal shares of the device.

        Raises
        ------
        RequestError
            The item's own failure: OUT_OF_MEMORY, INTERNAL, or what `compute` says; ENGINE_LOST.
        """
        if self._lost is not None:
            raise self._lost
        job: _Job[T, R] = _Job(item, asyncio.get_running_loop().create_future())
        entry = self._queue.add(job, seconds=seconds, caller=caller, kind=kind, now=time.monotonic())
        self._announce()
        try:
            return await job.result
        finally:
            if job.result.cancelled():
                waited = len(self._queue)
                self._queue.discard(entry)
                self._metrics.dropped.inc(waited - len(self._queue))
                self._announce()

    async def close(self) -> None:
        """Stop; what still waits fails as DRAINING."""
        self._loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._loop
        self._fail_all(RequestError("DRAINING", "this server is about to end: ask another one"))

    def _announce(self) -> None:
        self._metrics.waiting.set(len(self._queue))
        self._changed.set()

    async def _serve(self) -> None:
        while self._lost is None:
            await self._until_due()
            self._running = self._queue.take(self._recovery.budget)
            self._metrics.waiting.set(len(self._queue))
            if not self._running:
                continue
            self._count()
            batch = [Sized(entry.item.item, entry.seconds) for entry in self._running]
            try:
                outcomes = await self._thread.run(self._recovery.run, batch)
            except BrokenDeviceError as error:
                self._lose(str(error))
                return
            except Exception as error:
                # Whatever it was, nobody would compute what waits.
                log.exception("a fault in the computing of batches")
                self._lose(repr(error))
                return
            for entry, outcome in zip(self._running, outcomes, strict=True):
                entry.item.finish(outcome)

    async def _until_due(self) -> None:
        while True:
            self._changed.clear()
            due = self._queue.due(self._recovery.budget, self._max_wait)
            delay = None if due is None else due - time.monotonic()
            if delay is not None and delay <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    def _count(self) -> None:
        longest = max(entry.seconds for entry in self._running)
        self._metrics.items.observe(len(self._running))
        self._metrics.seconds.inc(sum(entry.seconds for entry in self._running))
        self._metrics.padded_seconds.inc(len(self._running) * longest)

    def _lose(self, why: str) -> None:
        self._lost = RequestError(
            "ENGINE_LOST", f"the device of this server is lost ({why}): ask another one"
        )
        self._fail_all(self._lost)
        self._on_broken(why)

    def _fail_all(self, error: RequestError) -> None:
        unlimited = Budget(float("inf"))
        while self._running:
            for entry in self._running:
                entry.item.finish(error)
            self._running = self._queue.take(unlimited)


class _Job(Generic[T, R]):
    """An item and the future of its result."""

    def __init__(self, item: T, result: "asyncio.Future[R]") -> None:
        self.item = item
        self.result = result

    def finish(self, outcome: R | RequestError) -> None:
        if self.result.done():
            return
        if isinstance(outcome, RequestError):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)

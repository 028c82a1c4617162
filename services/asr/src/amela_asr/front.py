"""The way from a request's recording to the engine, shared out among worker processes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from copy import copy
from functools import partial

from amela_common.audio import AudioLimits, AudioSource, Clip
from amela_common.pool import WorkerPool

from amela_asr.cutting import Cut, Cutter, Plan, Survey

# A recording this short takes a worker for a second, and 8 MB at 16 kHz.
SHORT_SECONDS = 120.0


class Front:
    """A pool of processes that decode, find speech and cut.

    Long recordings keep a worker each for as long as the engine is busy with them. They take turns
    for all workers but one, which short recordings always find.

    Parameters
    ----------
    limits
        What may be read.
    sample_rate
        Of the clips, in Hz.
    max_piece
        Longest clip in seconds.
    workers
        Processes, at least 2.
    on_restart
        Called whenever a process has died and is replaced.
    """

    def __init__(
        self,
        limits: AudioLimits,
        sample_rate: int,
        max_piece: float,
        workers: int,
        on_restart: Callable[[], None],
    ) -> None:
        self._pool = WorkerPool(
            partial(Cutter, limits, sample_rate, max_piece), workers, "front", on_restart=on_restart
        )
        self._for_long_recordings = asyncio.Semaphore(workers - 1)
        self._when_long: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        """Start the processes; raises `ConfigError`."""
        await self._pool.start()

    async def close(self) -> None:
        """End the processes."""
        await self._pool.close()

    def for_request(self, when_long: Callable[[], Awaitable[None]]) -> "Front":
        """Give one request this front's processes; a recording that is long waits for `when_long` first."""
        front = copy(self)
        front._when_long = when_long
        return front

    @asynccontextmanager
    async def open(self, source: AudioSource) -> AsyncIterator[tuple[Plan, AsyncIterator[Clip]]]:
        """Plan a recording of any length, and give the clips of its pieces as they are asked for.

        Raises
        ------
        RequestError
            If the recording cannot be read; while the clips are asked for, too.
        """
        plan: Plan | None = await self._pool.call(Survey(source, at_most=SHORT_SECONDS))
        if plan is not None:
            yield plan, _given(plan.clips or ())
            return
        if self._when_long is not None:
            await self._when_long()
        async with self._for_long_recordings:
            plan = await self._pool.call(Survey(source))
            assert plan is not None
            async with aclosing(self._pool.stream(Cut(source, plan.pieces))) as clips:
                yield plan, clips


async def _given(clips: tuple[Clip, ...]) -> AsyncGenerator[Clip]:
    for clip in clips:
        yield clip

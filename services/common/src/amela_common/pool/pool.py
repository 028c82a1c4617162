"""The server's side of a pool of workers: who is idle, who waits, who must be replaced."""

import asyncio
import logging
import pickle
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from amela_common.errors import ConfigError, RequestError
from amela_common.pool.process import WorkerLostError, WorkerProcess
from amela_common.pool.protocol import Abandon, Broken, Done, Factory, Failed, Item, Work, encode

log = logging.getLogger(__name__)

_LONGEST_DELAY = 30.0


class WorkerPool:
    """Runs requests in processes of their own, one at a time in each.

    A worker that dies fails the request it worked on with WORKER_LOST, and is replaced. A caller that
    is cancelled gets away at once; its worker is used again when it has reached a `CHECKPOINT` or the end.

    ```
    pool = WorkerPool(partial(DetectionHandler, limits), workers=4, name="vad")
    await pool.start()
    answer = await pool.call(request)
    await pool.close()
    ```

    Parameters
    ----------
    factory
        Makes the handler in each worker. It must be picklable: a module's function or class, or a
        `functools.partial` of one.
    workers
        Number of processes.
    name
        What the workers are called in messages and in the list of processes.
    patience
        Seconds that an abandoned worker has to become idle before it is killed and replaced.
    on_restart
        Called for each worker that has died, as `Metrics.worker_restarts` wants it.
    """

    def __init__(
        self,
        factory: Factory,
        workers: int,
        name: str,
        *,
        patience: float = 60.0,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.workers = workers
        self.restarts = 0
        self._setup = pickle.dumps(factory)
        self._patience = patience
        self._on_restart = on_restart
        self._processes: list[WorkerProcess] = []
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._busy: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Number of workers at work, also on what nobody waits for any more."""
        return len(self._busy)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        """Start the workers and wait until all are ready.

        Raises
        ------
        ConfigError
            With the words of the first worker that could not be set up.
        """
        starts = [self._start_worker() for _ in range(self.workers)]
        errors = [error for error in await asyncio.gather(*starts, return_exceptions=True) if error]
        if errors:
            await self.close()
            raise errors[0]

    async def call(self, request: Any) -> Any:
        """Return the one item that the handler yields for a request.

        Raises
        ------
        RequestError
            What the handler raised; INTERNAL for any other exception in it; WORKER_LOST if its process died.
        """
        async with aclosing(self.stream(request)) as items:
            [item] = [item async for item in items]
        return item

    async def stream(self, request: Any) -> AsyncGenerator[Any]:
        """Yield the items that the handler yields for a request, and keep the worker from running far ahead.

        Leave it through `contextlib.aclosing`, so that a worker is not kept by an iterator that
        nobody reads.

        Raises
        ------
        RequestError
            As `call` does.
        """
        message = encode(Work(request))
        worker = await self._take()
        finished = False
        try:
            await worker.send(message)
            while True:
                reply = await worker.receive()
                finished = not isinstance(reply, Item)
                match reply:
                    case Item(value):
                        yield value
                    case Done():
                        return
                    case Failed(error):
                        raise error
                    case Broken(summary, trace):
                        log.error("a worker failed on a request: %s", trace, extra=self._about(worker))
                        raise RequestError(
                            "INTERNAL", f"the {self.name} worker failed on this request: {summary}"
                        )
        except WorkerLostError as lost:
            raise RequestError(
                "WORKER_LOST",
                f"the {self.name} worker that had this request has died ({lost}); try again",
            ) from lost
        finally:
            if finished:
                self._release(worker)
            else:
                self._spawn(self._reclaim(worker))

    async def close(self) -> None:
        """End the workers, also those that work; their callers get WORKER_LOST."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._processes))
        self._processes.clear()

    async def _take(self) -> WorkerProcess:
        while True:
            worker = await self._idle.get()
            if worker.alive:
                self._busy.add(worker)
                return worker

    def _release(self, worker: WorkerProcess) -> None:
        self._busy.discard(worker)
        self._idle.put_nowait(worker)

    async def _reclaim(self, worker: WorkerProcess) -> None:
        """Wait until a worker has dropped the work that nobody wants any more."""
        try:
            async with asyncio.timeout(self._patience):
                await worker.send(encode(Abandon()))
                while isinstance(await worker.receive(), Item):
                    pass
        except WorkerLostError:
            self._busy.discard(worker)
        except TimeoutError:
            log.error(
                "a worker did not drop its abandoned work: killing it",
                extra={**self._about(worker), "waited_seconds": self._patience},
            )
            self._busy.discard(worker)
            await worker.kill()
        else:
            self._release(worker)

    async def _start_worker(self) -> None:
        worker = await WorkerProcess.start(self.name, self._setup)
        self._processes.append(worker)
        self._idle.put_nowait(worker)
        self._spawn(self._replace(worker))

    async def _replace(self, worker: WorkerProcess) -> None:
        """Wait until a worker dies, and start another one."""
        how = await worker.died()
        self._processes.remove(worker)
        self.restarts += 1
        self._on_restart()
        log.error("a worker died: starting another one", extra={**self._about(worker), "how": how})
        delay = 1.0
        while True:
            try:
                return await self._start_worker()
            except ConfigError as error:
                log.error("no new worker: %s", error, extra={"pool": self.name, "next_try_seconds": delay})
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _about(self, worker: WorkerProcess) -> dict[str, object]:
        return {"pool": self.name, "worker": worker.pid}

"""Spreads calls over a fleet: servers pull what they can take, and every task ends exactly once."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import Generic, Self

from amela_client.attempts import Attempt, Run
from amela_client.backlog import Backlog, Job, Outcome, ResultT, Task
from amela_client.errors import CallError
from amela_client.fitting import last_resort, longest_fitting, suits
from amela_client.fleet import Fleet, Member, Source
from amela_client.pacing import Effect, Speeds, backoff, call_timeout, judge
from amela_client.racing import races, seconds_per_second

_LOOKAHEAD_BYTES = 64 << 20
_UNREAD_OUTCOMES = 256
_TICK_SECONDS = 0.25
_FIRST_FILL_SECONDS = 0.05


class Scheduler(Generic[ResultT]):
    """Makes calls on whatever servers there are.

    Several runs may go on at once; they share the servers fairly. Use it as a context manager::

        async with Scheduler(source) as scheduler:
            async for outcome in scheduler.run(tasks):
                ...

    Parameters
    ----------
    source
        Where servers come from.
    mix_models, patience
        As for `Fleet`.
    lookahead
        Tasks of a run to hold; the longest of them goes first.
    timeout
        How long a call may take, in seconds, by the seconds of its audio.
    """

    def __init__(
        self,
        source: Source[ResultT],
        *,
        mix_models: bool = False,
        patience: float = 10.0,
        lookahead: int = 4096,
        timeout: Callable[[float], float] = call_timeout,
    ) -> None:
        self.fleet = Fleet(source, self._feed, mix_models=mix_models, patience=patience)
        self._lookahead = lookahead
        self._timeout = timeout
        self._runs: set[Run[ResultT]] = set()
        # Runs that may have something for a server, the one whose turn it is first.
        self._ready: OrderedDict[Run[ResultT], None] = OrderedDict()
        self._lanes: set[asyncio.Task[None]] = set()
        self._last_success = float("-inf")
        self._speeds = Speeds()
        self._upkeep: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Find the first servers; raises as `Fleet.start` does."""
        self._loop = asyncio.get_running_loop()
        try:
            await self.fleet.start()
        except BaseException:
            await self.fleet.close()
            raise
        self._upkeep = asyncio.create_task(self._keep_up(), name="scheduler")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._lanes, *([self._upkeep] if self._upkeep else [])]
        for run in list(self._runs):
            run.fail(RuntimeError("the client was closed during this call"))
            self._drop(run)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.fleet.close()

    async def run(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[ResultT], None]:
        """Make the calls of `tasks` and yield what became of each, in the order in which they end.

        Closing the generator, or cancelling who reads it, cancels the calls in flight. A slow reader
        slows the run down.

        Parameters
        ----------
        tasks
            Read only as far as needed, a slice at a time, on the event loop. None in between lets the
            loop see to other things.

        Raises
        ------
        NoServersError, CallError
            As `Fleet.trouble` says: tasks without an outcome by then have not been done.
        """
        run = Run[ResultT](Backlog(tasks, self._lookahead, _LOOKAHEAD_BYTES), self._loop.time())
        self._runs.add(run)
        try:
            self._refill(run)
            while True:
                while run.outcomes:
                    yield run.outcomes.popleft()
                    if run.is_throttled and len(run.outcomes) <= _UNREAD_OUTCOMES // 2:
                        run.is_throttled = False
                        self._offer(run)
                if run.failure:
                    raise run.failure
                if run.is_done:
                    return
                run.news.clear()
                await run.news.wait()
        finally:
            self._drop(run)

    def _refill(self, run: Run[ResultT]) -> None:
        """Pull a slice of tasks, and go on with the next at once while there is room."""
        run.is_refilling = False
        if run not in self._runs:
            return
        backlog = run.backlog
        try:
            backlog.pull()
        except Exception as error:  # Whatever the caller's iterable raises is the caller's.
            run.fail(error)
            return
        if backlog.wants_more:
            self._refill_soon(run)
        if backlog.exhausted:
            run.news.set()
        # The first servers wait for a full look-ahead, so that they begin with the longest tasks,
        # but not for a source that is slow to give any.
        if not backlog.wants_more or self._loop.time() > run.since + _FIRST_FILL_SECONDS:
            self._offer(run)

    def _refill_soon(self, run: Run[ResultT]) -> None:
        if not run.is_refilling:
            run.is_refilling = True
            self._loop.call_soon(self._refill, run)

    def _drop(self, run: Run[ResultT]) -> None:
        self._runs.discard(run)
        self._ready.pop(run, None)
        flying, run.flying = run.flying, {}
        for attempts in flying.values():
            for attempt in attempts:
                attempt.cancel()

    # What goes where.

    def _offer(self, run: Run[ResultT]) -> None:
        """Offer what a run has to every server, the fastest first."""
        if run in self._runs:
            self._ready[run] = None
            for member in sorted(self.fleet.serving, key=seconds_per_second):
                self._feed(member)

    def _feed(self, member: Member[ResultT]) -> None:
        """Give a server as much as it may have."""
        while attempt := self._next(member):
            self._launch(attempt)

    def _next(self, member: Member[ResultT]) -> Attempt[ResultT] | None:
        """Choose what a server does next; None if it may have nothing more now."""
        now = self._loop.time()
        if not member.serving or not member.window.is_open(now):
            return None
        for _ in range(len(self._ready)):
            run = next(iter(self._ready))
            self._ready.move_to_end(run)
            job = self._take(run, member, now)
            if job is not None:
                return run.begin(job, member, now)
        return None

    def _take(self, run: Run[ResultT], member: Member[ResultT], now: float) -> Job | None:
        backlog = run.backlog
        if backlog.wants_more:
            self._refill_soon(run)
        run.is_throttled = len(run.outcomes) >= _UNREAD_OUTCOMES
        if run.is_throttled or not len(backlog):
            del self._ready[run]
            return None
        # Towards the end nothing waits in the queue of one server that another could begin with.
        waiting = len(backlog) + len(self._ready)
        if backlog.exhausted and member.window.would_queue and waiting <= self.fleet.concurrency:
            return None
        longest = self._speeds.longest_suitable(member.pace, backlog.seconds)
        limit = longest_fitting(member, now)
        members = self.fleet.serving
        job = backlog.take(now, longest, limit, lambda job: suits(job, member, members, now))
        if job is None:
            return last_resort(run, member, members, now, self.fleet.patience)
        run.stranded_since = None
        return job

    # One attempt after the other.

    def _launch(self, attempt: Attempt[ResultT]) -> None:
        lane = asyncio.create_task(self._drive(attempt))
        self._lanes.add(lane)
        lane.add_done_callback(self._lanes.discard)

    async def _drive(self, attempt: Attempt[ResultT] | None) -> None:
        """Make an attempt, and then whatever the same server does next: a task for each would cost more."""
        assert attempt is not None
        member, lane = attempt.member, asyncio.current_task()
        try:
            while attempt:
                attempt.lane = lane
                try:
                    answer = await self._call(attempt)
                finally:
                    attempt.end()
                if isinstance(answer, CallError):
                    self._failed(attempt, answer)
                elif answer is not None:
                    self._answered(attempt, answer)
                attempt = self._next(member)
                if attempt and member.window.is_open(self._loop.time()):
                    self._feed(member)
        except asyncio.CancelledError:
            self._loop.call_soon(self._feed, member)
            raise
        except Exception as error:
            self._fail(error)

    async def _call(self, attempt: Attempt[ResultT]) -> ResultT | CallError | None:
        run, task = attempt.run, attempt.job.task
        if attempt.job not in run.flying:
            return None  # The run was closed before this lane began.
        try:
            return await attempt.member.server.call(task.request, self._timeout(task.seconds))
        except CallError as error:
            return error
        except Exception as error:  # A fault of this program: the reader of the run has to hear of it.
            run.fail(error)
            return None

    def _answered(self, attempt: Attempt[ResultT], result: ResultT) -> None:
        run, job, member = attempt.run, attempt.job, attempt.member
        now = self._loop.time()
        member.window.succeeded()
        member.pace.observe(job.task.seconds, now - attempt.since)
        member.falls = 0
        self._last_success = now
        others = run.flying.pop(job, None)
        if others is not None:  # Else another server was faster.
            for other in others:
                other.cancel()
            run.deliver(job, result, None, member.server.name)

    def _failed(self, attempt: Attempt[ResultT], error: CallError) -> None:
        run, job, member = attempt.run, attempt.job, attempt.member
        now = self._loop.time()
        verdict = judge(error, job.tries)
        match verdict.effect:
            case Effect.REST:
                member.window.refused(attempt.since, now, error.retry_after)
            case Effect.FAILED:
                member.window.failed(now, self._last_success)
            case Effect.SUSPEND:
                self.fleet.suspend(member, error)
        if member.window.rests_until > now:
            self._loop.call_at(member.window.rests_until, self._feed, member)
        if verdict.counts:
            job.tries += 1
            job.avoid.add(member.server.name)
        if run.flying.get(job) != []:
            return  # Answered, dropped, or still under way elsewhere.
        del run.flying[job]
        if not verdict.again:
            run.deliver(job, None, error, member.server.name)
        elif verdict.counts:
            due = now + backoff(job.tries)
            run.backlog.retry(job, due)
            self._loop.call_at(due, self._offer, run)
        else:
            run.backlog.put_back(job)
            self._loop.call_soon(self._offer, run)

    def _fail(self, error: Exception) -> None:
        """End all runs by a fault of this program, of which their readers have to hear."""
        for run in self._runs:
            run.fail(error)

    async def _keep_up(self) -> None:
        """See now and then to what no call's end brings about."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                self._look_after()
            except Exception as error:
                self._fail(error)

    def _look_after(self) -> None:
        self.fleet.check()
        for run in self._runs:
            # What a server works on while it drains is still to come.
            if not run.flying and (trouble := self.fleet.trouble(run.since)):
                run.fail(trouble)
        self._speeds.measure((member.pace, member.window.limit) for member in self.fleet.serving)
        self._ready.update((run, None) for run in self._runs if len(run.backlog))
        for member in self.fleet.serving:
            self._feed(member)
        now = self._loop.time()
        for attempt, member in races(self._runs, self.fleet.serving, now):
            self._launch(attempt.run.begin(attempt.job, member, now))

"""The books of a run: which servers try which of its jobs, and what its reader has still to get."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic

from amela_client.backlog import Backlog, Job, Outcome, ResultT
from amela_client.errors import CallError
from amela_client.fleet import Member


@dataclass(slots=True, eq=False)
class Run(Generic[ResultT]):
    """One reader's tasks."""

    backlog: Backlog
    since: float
    """When it began, by the event loop's clock."""
    outcomes: deque[Outcome[ResultT]] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    flying: "dict[Job, list[Attempt[ResultT]]]" = field(default_factory=dict)
    """Jobs that servers have, with the attempts under way."""
    failure: BaseException | None = None
    is_refilling: bool = False
    is_throttled: bool = False
    stranded_since: float | None = None
    """Since when no server has had the time for anything that waits."""

    @property
    def is_done(self) -> bool:
        """Whether every task has had its outcome."""
        return self.backlog.exhausted and not self.flying and not len(self.backlog)

    def begin(self, job: Job, member: Member[ResultT], now: float) -> "Attempt[ResultT]":
        """Note that a server gets a job, and take up its place there."""
        attempt = Attempt(self, job, member, now)
        member.window.in_flight += 1
        self.flying.setdefault(job, []).append(attempt)
        return attempt

    def deliver(self, job: Job, result: ResultT | None, error: CallError | None, endpoint: str) -> None:
        """Give the reader the one outcome of a job."""
        tries = job.tries + (error is None)
        outcome = Outcome(job.task.key, result, error, endpoint, tries, job.task.seconds)
        self.outcomes.append(outcome)
        self.news.set()

    def fail(self, error: BaseException) -> None:
        """End the run with an error, once its reader has what is there."""
        self.failure = self.failure or error
        self.news.set()


@dataclass(slots=True, eq=False)
class Attempt(Generic[ResultT]):
    """One call of one job."""

    run: Run[ResultT]
    job: Job
    member: Member[ResultT]
    since: float
    """When it began, by the event loop's clock."""
    lane: "asyncio.Task[None] | None" = None
    """Task that makes it, once it does."""

    def end(self) -> None:
        """Give its place at the server back."""
        self.member.window.in_flight -= 1
        others = self.run.flying.get(self.job)
        if others:
            others.remove(self)

    def cancel(self) -> None:
        """Give it up; one that has not begun sees by itself that its job is gone."""
        if self.lane:
            self.lane.cancel()

"""Servers whose time runs out: they get what they can still finish.

A server in an allocation says when it will begin to drain. What would take longer waits for another one.
What fits on none waits for a new server, and then goes to the one that stays longest: an expectation may be
wrong, and a drain gives some more time.
"""

import math
from collections.abc import Collection

from amela_client.attempts import Run
from amela_client.backlog import Job, ResultT
from amela_client.fleet import Member


def longest_fitting(member: Member[ResultT], now: float) -> float:
    """Give the longest audio, in seconds, that a server should still begin; infinite for one that stays."""
    return member.pace.longest_within(member.drains_at - now)


def suits(job: Job, member: Member[ResultT], members: Collection[Member[ResultT]], now: float) -> bool:
    """Whether a failed job may go to this server: to one that has failed it, if none else can take it."""

    def fits(other: Member[ResultT]) -> bool:
        return job.task.seconds <= longest_fitting(other, now)

    return fits(member) and (
        member.server.name not in job.avoid
        or not any(fits(other) and other.server.name not in job.avoid for other in members)
    )


def last_resort(
    run: Run[ResultT],
    member: Member[ResultT],
    members: Collection[Member[ResultT]],
    now: float,
    patience: float,
) -> Job | None:
    """Take what fits nowhere, one at a time, for the server that stays longest.

    Called when nothing that waits fits on a server. A new one is waited for first, for `patience` seconds.
    """
    shortest = run.backlog.shortest
    if shortest is None or any(shortest <= longest_fitting(other, now) for other in members):
        run.stranded_since = None
        return None
    if run.stranded_since is None:
        run.stranded_since = now
    waited = now - run.stranded_since >= patience
    longest = max(members, key=lambda other: other.drains_at)
    if not waited or member is not longest or member.window.in_flight:
        return None
    return run.backlog.take(now, 0.0, math.inf, lambda job: True)

"""The end of a run: idle servers start what others take too long for, and the first answer counts."""

from collections.abc import Collection, Iterator

from amela_client.attempts import Attempt, Run
from amela_client.backlog import ResultT
from amela_client.fleet import Member
from amela_client.pacing import expected_remaining, worth_racing


def races(
    runs: Collection[Run[ResultT]], members: Collection[Member[ResultT]], now: float
) -> Iterator[tuple[Attempt[ResultT], Member[ResultT]]]:
    """Choose attempts that last too long, the longest first, and a server to make each once more.

    Each pair has to begin before the next is asked for. A task is raced once, when nothing else waits.
    """
    if any(len(run.backlog) or not run.backlog.exhausted for run in runs):
        return
    fastest_first = sorted(members, key=seconds_per_second)
    for remaining, attempt in sorted(_stragglers(runs, now), key=lambda item: -item[0]):
        job = attempt.job
        for member in fastest_first:
            window = member.window
            if not window.is_open(now) or window.would_queue or member.server.name in job.avoid:
                continue
            seconds = job.task.seconds
            expected = member.pace.expect(seconds) or attempt.member.pace.expect(seconds)
            if member is attempt.member or not expected or now + expected > member.drains_at:
                continue
            if worth_racing(expected, remaining):
                job.raced = True
                yield attempt, member
                break


def _stragglers(runs: Collection[Run[ResultT]], now: float) -> Iterator[tuple[float, Attempt[ResultT]]]:
    for run in runs:
        for job, attempts in run.flying.items():
            if not job.raced and len(attempts) == 1:
                expected = attempts[0].member.pace.expect(job.task.seconds) or 0.0
                yield expected_remaining(expected, now - attempts[0].since), attempts[0]


def seconds_per_second(member: Member[ResultT]) -> float:
    """Give what a server takes for a second of audio; 0 if nothing is known of it."""
    return member.pace.expect(1.0) or 0.0

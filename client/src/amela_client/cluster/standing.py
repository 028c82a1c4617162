"""How the servers of a launch stand: what their jobs, their registrations and their health say together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.launch import Launch, Record
from amela_client.cluster.verdict import State, Verdict, judge
from amela_client.results import ServerStatus

# Nodes and this machine may not agree on the time.
_CLOCKS_SECONDS = 5.0


@dataclass(frozen=True)
class JobStanding:
    """How one job of a launch stands. Times are seconds, or seconds since the epoch; None: not known."""

    job: str
    state: State
    words: str = ""
    """Why it is in this state."""
    advice: str = ""
    """What to do; empty if there is nothing to."""
    hopeless: bool = False
    """It waits for ever if nobody does anything."""
    succeeds: str = ""
    """The job that it is the successor of."""
    node: str = ""
    queued: float | None = None
    """How long it waited in the queue, till now if it still does."""
    starting: float | None = None
    """How long its servers took to be ready from its start, till now if they are not."""
    since: float | None = None
    """When it came into this state."""
    ends: float | None = None
    """When its time is up."""
    restarts: int | None = None
    exit_code: int | None = None
    servers: tuple[ServerStatus, ...] = ()


@dataclass(frozen=True)
class LaunchStanding:
    """How a launch stands."""

    launch: Launch
    jobs: tuple[JobStanding, ...]
    ready: int
    """How many of the wanted jobs have all their servers ready; successors count with whom they succeed."""
    advice: str = ""


def stand_launch(record: Record, jobs: Sequence[JobStanding]) -> LaunchStanding:
    """Sum up how a launch stands."""
    launch = record.launch
    found = lines(record.jobs)
    states = {standing.job: standing.state for standing in jobs}

    def count(*wanted: State) -> int:
        return sum(any(states.get(job) in wanted for job in line) for line in found)

    alive = count(*(state for state in State if not state.is_over))
    if record.stopped:
        advice = f"it is being taken down; 'amela-client down {launch.name}' ends that"
    elif not alive:
        advice = f"nothing of it runs any more: 'amela-client down {launch.name}' removes it"
    elif alive < launch.count:
        advice = (
            f"{alive} of {launch.count} jobs are there: 'amela-client scale {launch.name} {launch.count}'"
            " starts the others"
        )
    else:
        advice = ""
    return LaunchStanding(launch, tuple(jobs), count(State.READY), advice)


def lines(jobs: Mapping[str, str]) -> list[list[str]]:
    """Group jobs with those that they succeed: each group keeps one server up. Oldest first."""
    groups: dict[str, list[str]] = {}
    for job, succeeds in jobs.items():
        group = groups.get(succeeds, [])
        group.append(job)
        groups[job] = group
    return [group for job, group in groups.items() if group[0] == job]


def is_stranded(job: Job, jobs: Mapping[str, str], there: Collection[str]) -> bool:
    """Whether a successor waits for its time to begin though whom it succeeds is over already.

    Parameters
    ----------
    jobs
        Ids of a launch's jobs, each with the one that it succeeds, or nothing.
    there
        Those that wait, run or are ending.
    """
    # One that was requeued waits for a moment only.
    is_early = job.state is JobState.PENDING and job.reason == "BeginTime" and not job.restarts
    return is_early and jobs.get(job.id, "") not in {"", *there}


def stand(
    record: Record,
    jobs: Sequence[Job] | None,
    past: Mapping[str, Job],
    servers: Sequence[ServerStatus],
    *,
    now: float,
) -> list[JobStanding]:
    """Tell how each job of a launch stands, but for those that ended as they were to.

    Parameters
    ----------
    jobs
        What the launcher still knows as waiting, running or ending. None: it cannot be asked.
    past
        What it remembers of jobs that are over, by id.
    servers
        All servers that are registered, of this launch and of others.
    now
        Seconds since the epoch.
    """
    known = {job.id: job for job in jobs or ()}
    standings = []
    for id_ in record.jobs:
        label = f"{record.launch.name}/{id_}"
        job = known.get(id_) or past.get(id_) or Job(id_, "", JobState.ENDED)
        its = tuple(server for server in servers if server.launch == label and _is_of_this_run(server, job))
        verdict = judge(record, job, its, now=now, is_known=jobs is not None)
        if is_stranded(job, record.jobs, known):
            verdict = _strand(record, job)
        if verdict.state is State.ENDED and (id_ in record.told or id_ in record.jobs.values()):
            continue
        standings.append(_standing(record, job, verdict, its, now))
    return standings


def _strand(record: Record, job: Job) -> Verdict:
    launch = record.launch
    return Verdict(
        State.PENDING,
        f"was to take over from {record.jobs[job.id]}, which has ended already",
        f"'amela-client scale {launch.name} {launch.count}' starts another in its place, at once",
    )


def _is_of_this_run(server: ServerStatus, job: Job) -> bool:
    """Tell a server from one that died in the job's last run, before the job was requeued."""
    if server.serving or job.state is JobState.ENDED:
        return True
    if job.state is JobState.PENDING:
        return False
    return not server.started or not job.started or server.started > job.started - _CLOCKS_SECONDS


def _standing(
    record: Record, job: Job, verdict: Verdict, servers: tuple[ServerStatus, ...], now: float
) -> JobStanding:
    exit_ = record.exits.get(job.id)
    # After a restart the queue's wait is not that of the submission.
    submitted = None if job.restarts else job.submitted
    is_pending = verdict.state is State.PENDING
    started = None if is_pending else job.started
    ready = max((server.started for server in servers if server.started), default=None)
    until = {State.READY: ready, State.STARTING: now}.get(verdict.state)
    since = {State.PENDING: job.submitted, State.STARTING: started, State.READY: ready}.get(verdict.state)
    return JobStanding(
        job=job.id,
        state=verdict.state,
        words=verdict.words,
        advice=verdict.advice,
        hopeless=verdict.hopeless,
        succeeds=record.jobs[job.id],
        node=job.node,
        queued=_between(submitted, now if is_pending else started),
        starting=_between(started, until),
        since=since,
        ends=job.ends if not verdict.state.is_over else None,
        restarts=job.restarts,
        exit_code=exit_.code if exit_ and verdict.state.is_over else job.exit_code,
        servers=servers,
    )


def _between(start: float | None, end: float | None) -> float | None:
    return max(0.0, end - start) if start is not None and end is not None else None

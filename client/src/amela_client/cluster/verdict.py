"""In which state a job's servers are, why, and what to do about it."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.launch import Launch, Record
from amela_client.cluster.reasons import explain
from amela_client.progress import clock
from amela_client.results import ServerStatus

STALE_SECONDS = 60.0
"""A registration that was not renewed for so long is a dead server's, or of a node that is cut off."""
NEAR_END_SECONDS = 900.0
_SLOW_START_SECONDS = 900.0
# SLURM's signal before the end, the minute that it may come early, and some for the clocks.
_SIGNAL_SECONDS = 200.0
# SIGKILL, which is how a node that runs out of memory helps itself.
_KILLED = 137


class State(Enum):
    """Where a job's servers are in their life."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    """Registered, but takes no calls."""
    DRAINING = "draining"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"
    """Dead without a word: killed, or its node is gone."""
    UNKNOWN = "unknown"
    """Its launcher cannot be asked."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self in {State.ENDED, State.FAILED, State.LOST}


class Verdict(NamedTuple):
    """A state, and what there is to say about it."""

    state: State
    words: str = ""
    """Why it is in this state."""
    advice: str = ""
    """What to do; empty if there is nothing to."""
    hopeless: bool = False
    """It waits for ever if nobody does anything."""


_ENDS = {
    "OUT_OF_MEMORY": Verdict(State.FAILED, "took more memory than SLURM gave it", "start it with more --mem"),
    "CANCELLED": Verdict(State.ENDED, "was cancelled"),
    "PREEMPTED": Verdict(State.ENDED, "was preempted"),
    "COMPLETED": Verdict(State.ENDED, "ended"),
    "TIMEOUT": Verdict(State.ENDED, "its time was up before it had drained"),
    "NODE_FAIL": Verdict(State.LOST, "its node failed"),
    "BOOT_FAIL": Verdict(State.LOST, "its node did not boot"),
    "": Verdict(State.LOST, "ended without a word: it was killed, or its node was lost"),
}
"""What SLURM's words for jobs that are over come to."""


def judge(
    record: Record, job: Job, servers: Sequence[ServerStatus], *, now: float, is_known: bool = True
) -> Verdict:
    """Tell in which state a job's servers are.

    Parameters
    ----------
    job
        As the launcher has it; one that it has forgotten is ENDED.
    servers
        Those that the job registered.
    now
        Seconds since the epoch.
    is_known
        Whether the launcher could be asked.
    """
    if not is_known and job.id not in record.exits:
        if not servers:
            return Verdict(State.UNKNOWN, "its launcher cannot be asked")
        return _running(record, Job(job.id, job.name, JobState.RUNNING), servers, now)
    if job.state is JobState.PENDING:
        return _pending(record, job)
    if job.state is JobState.ENDED:
        verdict = _over(record, job)
        left = f"'amela-client down {record.launch.name}' removes the registration that it left"
        advice = [verdict.advice, left if servers else ""]
        return verdict._replace(advice="; ".join(filter(None, advice)))
    return _running(record, job, servers, now)


def advise_on_server(server: ServerStatus, registry: Path, now: float) -> str:
    """Say what is wrong with a server of no launch and what to do, or that its time is nearly up."""
    if not server.reachable and (server.heartbeat_age or 0.0) > STALE_SECONDS:
        return f"{server.problem}. If so, remove {registry / server.registration}.json"
    if server.serving and server.ends is not None and server.ends - now < NEAR_END_SECONDS:
        return f"its time is up in {clock(max(0.0, server.ends - now))}"
    return server.problem


def _pending(record: Record, job: Job) -> Verdict:
    if record.jobs.get(job.id) and job.reason == "BeginTime":
        return Verdict(State.PENDING, f"takes over from {record.jobs[job.id]} before that one's time is up")
    reason = explain(job.reason)
    words = f"{job.reason}: {reason.meaning}" if job.reason else reason.meaning
    return Verdict(State.PENDING, words, reason.advice, reason.hopeless)


def _running(record: Record, job: Job, servers: Sequence[ServerStatus], now: float) -> Verdict:
    launch = record.launch
    ready = sum(server.serving for server in servers)
    if job.state is JobState.ENDING or job.id in record.told or record.stopped:
        return Verdict(State.DRAINING, "finishes what it has")
    for server in servers:
        if not server.serving:
            return _ailing(launch, job, server)
    if ready >= launch.servers_per_job:
        return Verdict(State.READY, "", _ready_advice(launch, job, servers, now))
    if not ready and job.ends is not None and job.ends - now < _drain_window(job, job.ends):
        return Verdict(State.DRAINING, "its time is nearly up")
    words = f"{ready} of {launch.servers_per_job} servers are ready" if ready else ""
    slow = job.started is not None and now - job.started > _SLOW_START_SECONDS
    return Verdict(
        State.STARTING, words, f"it takes long to be ready; {_see_log(launch, job)}" if slow else ""
    )


def _ailing(launch: Launch, job: Job, server: ServerStatus) -> Verdict:
    if not server.reachable and (server.heartbeat_age or 0.0) > STALE_SECONDS:
        end = f"scancel {job.id}" if launch.launcher == "slurm" else f"kill {server.pid}"
        return Verdict(
            State.LOST,
            server.problem,
            f"if {job.node or server.host} is well, end it and start another:"
            f" {end}; amela-client scale {launch.name} {launch.count}",
        )
    words = f"registered, but takes no calls: {server.problem}"
    return Verdict(State.UNHEALTHY, words, f"if it stays so, {_see_log(launch, job)}")


def _ready_advice(launch: Launch, job: Job, servers: Sequence[ServerStatus], now: float) -> str:
    for server in servers:
        if server.gpu and server.gpu.memory_mib < launch.gpu_memory_mib:
            return (
                f"it has {server.gpu.memory_mib:,} MiB of GPU memory, and its model needs"
                f" {launch.gpu_memory_mib:,}: start it with a smaller --per-gpu, or on other --gres"
            )
    if job.ends is not None and job.ends - now < NEAR_END_SECONDS and not launch.renew:
        return (
            f"its time is up in {clock(max(0.0, job.ends - now))}: start others with 'amela-client up', and"
            " with --renew, which hands in successors"
        )
    return ""


def _drain_window(job: Job, ends: float) -> float:
    limit = ends - (job.started or ends)
    return min(_SIGNAL_SECONDS, limit / 5)


def _over(record: Record, job: Job) -> Verdict:
    exit_ = record.exits.get(job.id)
    if job.id in record.told or record.stopped:
        return Verdict(State.ENDED, "was told to end")
    if exit_ is not None and exit_.code == 0:
        return Verdict(State.ENDED, "drained")
    logs = _see_log(record.launch, job)
    if exit_ is not None and job.reason in {"", "FAILED"}:
        killed = "it was killed: if for want of memory, start it with more --mem; "
        advice = killed + logs if exit_.code == _KILLED else logs
        return Verdict(State.FAILED, exit_.words or f"ended with exit code {exit_.code}", advice)
    verdict = _ENDS.get(job.reason) or Verdict(State.FAILED, f"ended as {job.reason}")
    return verdict if verdict.advice or verdict.state is State.ENDED else verdict._replace(advice=logs)


def _see_log(launch: Launch, job: Job) -> str:
    return f"see its log: amela-client logs {launch.name} --job {job.id}"

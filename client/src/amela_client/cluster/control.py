"""Servers as jobs: started, made more or fewer, taken down.

>>> plan = plan_launch(LaunchOptions("asr", model="canary-qwen", time="8:00:00"), site=load_site())
>>> launch = await start(plan, launcher="slurm", count=4)
>>> async for standing in watch(launch, launch.jobs()): ...
>>> await scale(launch, 8)
>>> await take_down([launch])
"""

import asyncio
import fcntl
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from amela_client.cluster.catalogue import load_catalogue
from amela_client.cluster.jobs import Job, JobState, Launcher
from amela_client.cluster.launch import Launch, create_launch, new_name
from amela_client.cluster.launchers import launcher_named, launcher_of
from amela_client.cluster.plan import LaunchOptions, ServerPlan, make_plan
from amela_client.cluster.preflight import check, find_programs, prepare_registry
from amela_client.cluster.script import server_script
from amela_client.cluster.site import Site, registry_folder
from amela_client.cluster.standing import is_stranded, lines
from amela_client.errors import LaunchError, SubmissionError

_POLL_SECONDS = 0.3
_LONGEST_POLL_SECONDS = 5.0
# A job records its successor right after it has submitted it.
_RECORDING_SECONDS = 5.0


def plan_launch(
    options: LaunchOptions, *, site: Site, registry: Path | None = None, name: str | None = None
) -> ServerPlan:
    """Put options, catalogue and site together. Nothing is made or changed.

    Raises
    ------
    SetupError
        If an option, the site file or the catalogue cannot be used.
    """
    plan = make_plan(
        options,
        site,
        load_catalogue(site.catalogue),
        name=name or new_name(options.stage),
        registry=registry.expanduser().absolute() if registry else registry_folder(site),
        here=Path.cwd(),
    )
    return replace(plan, programs=find_programs(plan.stage) if plan.image is None else None)


async def start(plan: ServerPlan, *, launcher: str, count: int, group: str | None = None) -> Launch:
    """Look whether the plan can work, and submit `count` jobs of it.

    Parameters
    ----------
    launcher
        ``slurm`` or ``local``.
    group
        Unix group that may call the servers, and all others of this registry. None: as it is.

    Raises
    ------
    SetupError
        If it cannot work; nothing was submitted.
    LaunchError
        If some jobs were submitted, but not all.
    """
    runs_jobs = launcher_named(launcher, plan.registry)
    await asyncio.to_thread(prepare_registry, plan.registry, group)
    await asyncio.to_thread(check, plan, launcher)
    launch = create_launch(plan, server_script(plan), launcher=launcher, count=count)
    await _submit(launch, runs_jobs, count)
    return launch


@dataclass(frozen=True)
class Scaling:
    """What `scale` did."""

    launch: Launch
    started: tuple[str, ...] = ()
    """Jobs that were submitted."""
    told: tuple[str, ...] = ()
    """Jobs that were told to end."""


async def scale(launch: Launch, count: int) -> Scaling:
    """Submit what is missing to `count` jobs, or end what is too many: what waits first, then the newest.

    A successor that would begin hours after the end of whom it succeeds is replaced.

    Raises
    ------
    LaunchError
        If the launch was taken down, or if not all jobs could be submitted.
    ClientError
        If the launcher cannot be asked.
    """
    gone = LaunchError(f"{launch.name} was taken down: start another with 'amela-client up'")
    launcher = launcher_of(launch)
    try:
        async with _alone(launch):
            if launch.stopped:
                raise gone
            return await _scale(launch, launcher, count)
    except FileNotFoundError:
        raise gone from None


async def _scale(launch: Launch, launcher: Launcher, count: int) -> Scaling:
    present, stranded = await asyncio.to_thread(_present, launch, launcher)
    launch = launch.with_count(count)
    going = [*stranded, *choose_to_end(launch.jobs(), present, launch.told(), keep=count)]
    if going:
        await asyncio.to_thread(_tell, launch, launcher, going)
    missing = count - count_alive(launch.jobs(), present, launch.told())
    if missing <= 0:
        return Scaling(launch, told=tuple(going))
    return Scaling(launch, started=tuple(await _submit(launch, launcher, missing)))


def count_alive(jobs: Mapping[str, str], present: Mapping[str, JobState], told: Collection[str]) -> int:
    """Count the servers that are there or to come; a successor and whom it succeeds are one.

    Parameters
    ----------
    jobs
        Ids of a launch's jobs, each with the one that it succeeds, or nothing.
    present
        States of those that are not over.
    told
        Those that were told to end.
    """
    return len(_alive(jobs, present, told))


def choose_to_end(
    jobs: Mapping[str, str], present: Mapping[str, JobState], told: Collection[str], *, keep: int
) -> list[str]:
    """Choose the jobs to end so that `keep` servers stay: those that wait first, then the newest.

    Parameters are those of `count_alive`.
    """
    alive = _alive(jobs, present, told)
    # Stable, so that the oldest come first among those that run, and those that wait come last.
    alive.sort(key=lambda line: all(present[job] is JobState.PENDING for job in line))
    # A successor goes before whom it succeeds, or else it would take over at once.
    return [job for line in reversed(alive[keep:]) for job in reversed(line)]


async def take_down(launches: Sequence[Launch], *, keep_logs: bool = False, kill: bool = False) -> None:
    """End the jobs of launches, wait until they have drained, and remove all that is left of them.

    Nothing else is touched: a job is one of a launch's if it has its name, is this user's, and is recorded
    in its folder.

    Parameters
    ----------
    keep_logs
        Leave the logs where they are.
    kill
        Do not let servers finish what they have.

    Raises
    ------
    LaunchError
        If there are jobs of a launch's name that it has no record of.
    ClientError
        If a launcher cannot be asked.
    """
    groups: dict[str, list[Launch]] = {}
    launchers = {launch.launcher: launcher_of(launch) for launch in launches}
    for launch in launches:
        # Another command may be through with it by now.
        with suppress(FileNotFoundError):
            launch.stop()
        groups.setdefault(launch.launcher, []).append(launch)
    ends = [_end(group, launchers[name], keep_logs=keep_logs, kill=kill) for name, group in groups.items()]
    for result in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _end(launches: Sequence[Launch], launcher: Launcher, *, keep_logs: bool, kill: bool) -> None:
    began = time.monotonic()
    left = list(launches)
    killed: set[str] = set()
    while left:
        told_before = {launch: launch.told() for launch in left}
        jobs = await asyncio.to_thread(launcher.jobs, [launch.job_name for launch in left])
        waited = time.monotonic() - began
        for launch in tuple(left):
            states = {job.id: job.state for job in jobs if job.name == launch.job_name}
            ours, strangers = _split(list(states), launch.jobs())
            done = killed if kill else launch.told()
            if fresh := [id_ for id_ in ours if id_ not in done]:
                await _tell_once(launch, launcher, fresh, kill=kill)
                killed.update(fresh)
            # What SLURM has put back into the queue since would wait for its turn before it ends.
            if again := [id_ for id_ in told_before[launch] if states.get(id_) is JobState.PENDING]:
                await asyncio.to_thread(launcher.cancel, again)
            if not states or not launch.script.exists():
                await asyncio.to_thread(_clear, launch, keep_logs=keep_logs)
                left.remove(launch)
            elif not ours and waited > _RECORDING_SECONDS:
                raise LaunchError(
                    f"{launch.name} is down, but there are jobs of its name that it has no record of:"
                    f" {', '.join(strangers)}. If they are its, run 'scancel {' '.join(strangers)}', and give"
                    " this command again"
                )
        await asyncio.sleep(min(_LONGEST_POLL_SECONDS, max(_POLL_SECONDS, waited / 20)) if left else 0)


async def _tell_once(launch: Launch, launcher: Launcher, ids: Sequence[str], *, kill: bool) -> None:
    with suppress(FileNotFoundError):
        async with _alone(launch):
            # Servers take a second signal for the order to drop what they have, and another command may have
            # sent the first.
            told = set() if kill else launch.told()
            fresh = [id_ for id_ in ids if id_ not in told]
            await asyncio.to_thread(_tell, launch, launcher, fresh, kill=kill)


def _split(ids: Sequence[str], recorded: Collection[str]) -> tuple[list[str], list[str]]:
    return [id_ for id_ in ids if id_ in recorded], [id_ for id_ in ids if id_ not in recorded]


def _clear(launch: Launch, *, keep_logs: bool) -> None:
    for path in launch.folder.parent.parent.glob("*.json"):
        with suppress(OSError, ValueError, AttributeError):
            label = json.loads(path.read_bytes()).get("launch", "")
            if label.startswith(f"{launch.name}/"):
                path.unlink()
    while launch.folder.exists():
        try:
            launch.remove(keep_logs=keep_logs)
            return
        except FileNotFoundError:
            # Another command removes it as well, and may be behind with that.
            continue
        except OSError as error:
            raise LaunchError(f"{launch.folder} cannot be removed: {error.strerror}") from error


def _alive(
    jobs: Mapping[str, str], present: Mapping[str, JobState], told: Collection[str]
) -> list[list[str]]:
    there = ([job for job in line if job in present and job not in told] for line in lines(jobs))
    return [line for line in there if line]


def _present(launch: Launch, launcher: Launcher) -> tuple[dict[str, JobState], list[str]]:
    """Return the states of the jobs that are not over, but for those that are stranded, and these."""
    jobs: list[Job] = launcher.jobs([launch.job_name])
    recorded, told = launch.jobs(), launch.told()
    there = {job.id for job in jobs}
    stranded = [job.id for job in jobs if is_stranded(job, recorded, there) and job.id not in told]
    present = [job for job in jobs if job.state in {JobState.PENDING, JobState.RUNNING}]
    return {job.id: job.state for job in present if job.id not in stranded}, stranded


def _tell(launch: Launch, launcher: Launcher, ids: Sequence[str], *, kill: bool = False) -> None:
    (launcher.kill if kill else launcher.cancel)(ids)
    for id_ in ids:
        launch.tell(id_)


@asynccontextmanager
async def _alone(launch: Launch) -> AsyncIterator[None]:
    """Keep out other commands that start or end jobs of a launch.

    Raises
    ------
    FileNotFoundError
        If the launch is gone.
    """
    # Its script stays as it is as long as there is a launch. To write, or NFS gives no lock.
    with launch.script.open("rb+") as file:
        # No event tells that another process is done.
        while not _lock(file):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        yield


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # The file system has no locks, and commands have to do without.
        pass
    return True


async def _submit(launch: Launch, launcher: Launcher, count: int) -> list[str]:
    submitted: list[str] = []

    def submit_one() -> None:
        job = launcher.submit(launch.script)
        try:
            launch.add_job(job)
        except OSError as error:
            launcher.kill([job])
            raise LaunchError(
                f"{launch.folder} cannot be written ({error.strerror}), so job {job} was ended again"
            ) from error
        submitted.append(job)

    for _ in range(count):
        try:
            # On a thread, which ends its work even if this is cancelled: no job goes unrecorded.
            await asyncio.to_thread(submit_one)
        except SubmissionError as error:
            if not submitted and not launch.jobs():
                launch.remove()
                raise
            raise LaunchError(
                f"{len(submitted)} of {count} jobs of {launch.name} were submitted and go on; the next was"
                f" refused: {error}. 'amela-client scale {launch.name} {launch.count}' tries again,"
                f" 'amela-client down {launch.name}' ends all"
            ) from error
    return submitted

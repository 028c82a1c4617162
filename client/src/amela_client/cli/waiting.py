"""Waiting until the servers of a launch are ready, or gone."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress

from rich.console import Console

from amela_client.cli.running import StoppedError, until_signal
from amela_client.cli.standings import view_for
from amela_client.cluster.launch import Launch
from amela_client.cluster.logs import last_lines
from amela_client.cluster.overview import is_settled, watch
from amela_client.cluster.standing import JobStanding, LaunchStanding
from amela_client.cluster.verdict import State
from amela_client.errors import LaunchError

_LAST_LINES = 10


def wait_for(
    launch: Launch,
    jobs: Collection[str],
    console: Console,
    *,
    timeout: float | None = None,
    until: Callable[[JobStanding], bool] = is_settled,
) -> LaunchStanding:
    """Show how jobs of a launch stand until each is so far, or the time is up.

    Raises
    ------
    LaunchError
        If the time is up before the first look is done.
    StoppedError
        After a signal. The jobs stay.
    """
    view = view_for(console)
    standing: LaunchStanding | None = None

    async def look() -> None:
        nonlocal standing
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), aclosing(watch(launch, jobs, until)) as looks:
                async for standing in looks:
                    view.update(_of(standing, jobs), time.time())

    try:
        until_signal(look())
    except StoppedError as stop:
        raise StoppedError(stop.number, f"{stop}. {_how_to_go_on(launch)}") from None
    finally:
        view.close()
    if standing is None:
        raise LaunchError(f"nothing is known yet of {launch.name}. {_how_to_go_on(launch)}")
    return standing


def at_once(_: JobStanding) -> bool:
    """Wait for nothing: one look."""
    return True


def is_over(standing: JobStanding) -> bool:
    """Wait for the end."""
    return standing.state.is_over


def refuse_unready(standing: LaunchStanding, jobs: Collection[str], console: Console) -> None:
    """Explain what is not ready of these jobs.

    Raises
    ------
    LaunchError
        If any is not.
    """
    launch = standing.launch
    listed = {job.job: job for job in _of(standing, jobs)}
    # What another command ends meanwhile is not listed any more.
    gone = [id_ for id_ in jobs if id_ not in listed]
    failed = [job for job in listed.values() if job.state is not State.READY]
    for id_ in gone:
        console.print(f"job {id_}: was told to end")
    for job in failed:
        console.print(f"job {job.job}: {job.state.value}{f', {job.words}' if job.words else ''}")
        if job.state.is_over:
            for line in last_lines(launch.log(job.job), _LAST_LINES):
                console.print(f"  {line}")
        if job.advice:
            console.print(f"  {job.advice}")
    unready = len(failed) + len(gone)
    if unready:
        raise LaunchError(f"{launch.name}: {unready} of {len(jobs)} jobs not ready. {_how_to_go_on(launch)}")


def _of(standing: LaunchStanding, jobs: Collection[str]) -> list[JobStanding]:
    return [job for job in standing.jobs if job.job in jobs]


def _how_to_go_on(launch: Launch) -> str:
    return (
        f"Its jobs stay as they are: 'amela-client status {launch.name}' shows them,"
        f" 'amela-client down {launch.name}' ends them"
    )

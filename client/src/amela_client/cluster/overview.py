"""What launches and servers a registry has, and how they do: asked anew at each look."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amela_client.cluster.jobs import Job
from amela_client.cluster.launch import Launch, Record, all_launches, open_launch
from amela_client.cluster.launchers import launcher_of
from amela_client.cluster.standing import JobStanding, LaunchStanding, stand, stand_launch
from amela_client.cluster.verdict import State, advise_on_server
from amela_client.discovery import Discovery
from amela_client.errors import ClientError
from amela_client.results import ServerStatus
from amela_client.survey import survey

_SHORTEST_PAUSE_SECONDS = 0.5
# A controller has other users, and a queue may last for days.
_LONGEST_PAUSE_SECONDS = 10.0
# What servers say of themselves is worth seeing even while SLURM says nothing.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Overview:
    """What there is at one moment."""

    registry: Path
    launches: tuple[LaunchStanding, ...]
    others: tuple[ServerStatus, ...] = ()
    """Servers of no launch: started by hand, or left over."""
    problems: tuple[str, ...] = ()
    """What could not be read or asked."""


async def overview(registry: Path, names: Collection[str] = ()) -> Overview:
    """Look at a registry's launches and servers, or at the launches of these names only.

    Raises
    ------
    LaunchError
        If there is no launch of such a name.
    DiscoveryError
        If the registry cannot be used.
    """
    if names:
        found: list[Launch | ClientError] = [open_launch(registry, name) for name in names]
    else:
        found = list(all_launches(registry))
    launches = [each for each in found if isinstance(each, Launch)]
    problems = [str(each) for each in found if isinstance(each, ClientError)]
    servers = await survey(Discovery(registry), set(names) if names else None)
    standings, unasked = await _look(launches, servers)
    shown = {server.registration for each in standings for job in each.jobs for server in job.servers}
    now = time.time()
    others = [server for server in servers if server.endpoint and server.registration not in shown]
    return Overview(
        registry,
        tuple(standings),
        tuple(replace(server, problem=advise_on_server(server, registry, now)) for server in others),
        (*problems, *unasked, *(server.problem for server in servers if not server.endpoint)),
    )


def is_settled(standing: JobStanding) -> bool:
    """Whether waiting for a job to be ready has come to its end."""
    return standing.state is State.READY or standing.state.is_over or standing.hopeless


async def watch(
    launch: Launch, jobs: Collection[str], until: Callable[[JobStanding], bool] = is_settled
) -> AsyncGenerator[LaunchStanding, None]:
    """Look at a launch again and again until each of these jobs is so far: ready, over or hopeless.

    Raises
    ------
    DiscoveryError
        If the registry cannot be used.
    """
    registry = launch.folder.parent.parent
    began = time.monotonic()
    while True:
        servers = await survey(Discovery(registry), {launch.name})
        [standing], _ = await _look([launch], servers)
        yield standing
        if all(until(each) for each in standing.jobs if each.job in jobs):
            return
        pause = (time.monotonic() - began) / 20
        await asyncio.sleep(min(max(pause, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))


async def _look(
    launches: Sequence[Launch], servers: Sequence[ServerStatus]
) -> tuple[list[LaunchStanding], list[str]]:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for launch in launches:
        where = launch.host if launch.launcher == "local" else ""
        groups[launch.launcher, where].append(await asyncio.to_thread(Record.read, launch))
    standings, problems = [], []
    for records in groups.values():
        jobs: list[Job] | None = None
        past: dict[str, Job] = {}
        try:
            jobs, past = await asyncio.to_thread(_ask, records)
        except ClientError as error:
            problems.append(str(error))
        now = time.time()
        for record in records:
            mine = None if jobs is None else [job for job in jobs if job.name == record.launch.job_name]
            standings.append(stand_launch(record, stand(record, mine, past, servers, now=now)))
    return sorted(standings, key=lambda standing: standing.launch.created), problems


def _ask(records: Sequence[Record]) -> tuple[list[Job], dict[str, Job]]:
    """Ask the launcher of all these launches: once for what runs, and once for what ended without a word."""
    launcher = launcher_of(records[0].launch, patience=_PATIENCE_SECONDS)
    jobs = launcher.jobs([record.launch.job_name for record in records])
    known = {job.id for job in jobs}
    unexplained = [
        id_ for record in records for id_ in record.jobs if id_ not in known and id_ not in record.exits
    ]
    return jobs, launcher.past(unexplained) if unexplained else {}

"""What servers there are and how they do, for people to look at."""

import asyncio

from amela.common.v1.registration_pb2 import Registration
from amela.common.v1.server_pb2 import ServerInfo

from amela_client.channel import Connection
from amela_client.discovery import Discovery
from amela_client.endpoint import Endpoint
from amela_client.errors import CallError
from amela_client.results import Model, ServerStatus
from amela_client.services import SERVICES

_STALE_SECONDS = 60.0


async def survey(discovery: Discovery) -> list[ServerStatus]:
    """Ask every server that can be found how it does; broken registrations come as servers with a problem.

    Raises
    ------
    DiscoveryError
        As `Discovery.look` does.
    """
    listing = await asyncio.to_thread(discovery.look)
    rows = await asyncio.gather(*(_ask(endpoint) for endpoint in listing.endpoints))
    found = [status for statuses in rows for status in statuses]
    found += [ServerStatus("", problem=problem) for problem in listing.problems]
    return sorted(found, key=lambda status: (status.service, status.endpoint))


async def _ask(endpoint: Endpoint) -> list[ServerStatus]:
    registered = endpoint.registration.service if endpoint.registration else None
    if registered:
        return [await _ask_for(endpoint, registered)]
    # Only the server knows what it serves.
    statuses = await asyncio.gather(*(_ask_for(endpoint, name) for name in SERVICES))
    return [status for status in statuses if status.serving] or [statuses[0]]


async def _ask_for(endpoint: Endpoint, name: str) -> ServerStatus:
    if name not in SERVICES:
        return ServerStatus(endpoint.name, name, problem=f"this client does not know the service {name}")
    connection = Connection(endpoint, SERVICES[name])
    reachable = serving = False
    info, problem = ServerInfo(), ""
    try:
        await connection.check_health()
        reachable = serving = True
        info = await connection.info()
    except CallError as error:
        reachable = reachable or error.reason in {"NOT_SERVING", "NOT_FOUND"}
        problem = error.message
    finally:
        await connection.close()
    age = endpoint.heartbeat_age()
    if not reachable and age is not None and age > _STALE_SECONDS:
        problem += f"; its registration was last renewed {age:.0f} s ago, so it has probably died"
    return ServerStatus(
        endpoint.name,
        name,
        reachable=reachable,
        serving=serving,
        model=Model.from_proto(info.model) if info.HasField("model") else None,
        concurrency=info.capacity.concurrency,
        queue=info.capacity.queue,
        version=info.version,
        heartbeat_age=age,
        slurm_job=_slurm_job(endpoint.registration),
        problem=problem,
    )


def _slurm_job(registration: Registration | None) -> str:
    if registration is None or not registration.HasField("slurm"):
        return ""
    slurm = registration.slurm
    return f"{slurm.job_id}_{slurm.array_task_id}" if slurm.HasField("array_task_id") else str(slurm.job_id)

"""What servers there are and how they do, for people to look at."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from amela.common.v1.registration_pb2 import Registration
from amela.common.v1.server_pb2 import ServerInfo
from google.protobuf.timestamp_pb2 import Timestamp

from amela_client.channel import Connection
from amela_client.discovery import Discovery
from amela_client.endpoint import Endpoint
from amela_client.errors import CallError
from amela_client.results import Gpu, Model, ServerStatus
from amela_client.services import SERVICES

_STALE_SECONDS = 60.0


async def survey(discovery: Discovery, launches: Collection[str] | None = None) -> list[ServerStatus]:
    """Ask every server that can be found how it does; broken registrations come as servers with a problem.

    Parameters
    ----------
    launches
        Ask the servers of these launches only.

    Raises
    ------
    DiscoveryError
        As `Discovery.look` does.
    """
    listing = await asyncio.to_thread(discovery.look)
    endpoints = [
        endpoint for endpoint in listing.endpoints if launches is None or _launch_of(endpoint) in launches
    ]
    rows = await asyncio.gather(*(_ask(endpoint) for endpoint in endpoints))
    found = [status for statuses in rows for status in statuses]
    found += [ServerStatus("", problem=problem) for problem in listing.problems]
    return sorted(found, key=lambda status: (status.service, status.endpoint))


def _launch_of(endpoint: Endpoint) -> str:
    return endpoint.registration.launch.partition("/")[0] if endpoint.registration else ""


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
    capacity = info.capacity
    status = ServerStatus(
        endpoint.name,
        name,
        reachable=reachable,
        serving=serving,
        model=Model.from_proto(info.model) if info.HasField("model") else None,
        concurrency=capacity.concurrency,
        queue=capacity.queue,
        version=info.version,
        heartbeat_age=age,
        gpu=Gpu.from_proto(info.gpu) if info.HasField("gpu") else None,
        batch_seconds=capacity.batch_seconds,
        problem=problem,
    )
    return _as_registered(status, endpoint.registration) if endpoint.registration else status


def _as_registered(status: ServerStatus, registration: Registration) -> ServerStatus:
    slurm = registration.slurm
    job = str(slurm.job_id) if registration.HasField("slurm") else ""
    return replace(
        status,
        gpu=status.gpu or (Gpu.from_proto(registration.gpu) if registration.HasField("gpu") else None),
        registration=registration.id,
        launch=registration.launch,
        host=registration.host,
        pid=registration.pid,
        started=_time(registration.started) if registration.HasField("started") else None,
        slurm_job=f"{job}_{slurm.array_task_id}" if slurm.HasField("array_task_id") else job,
        node=slurm.node,
        ends=_time(slurm.end) if slurm.HasField("end") else None,
    )


def _time(timestamp: Timestamp) -> float:
    return timestamp.seconds + timestamp.nanos / 1e9

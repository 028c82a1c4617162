"""``amela-client servers``: which servers there are, and how they do."""

from typing import Annotated

import typer

from amela_client.cli import connection
from amela_client.cli.output import output_console, print_json, table
from amela_client.cli.running import error_console, until_signal
from amela_client.client import AmelaClient
from amela_client.discovery import Discovery
from amela_client.endpoint import Trust
from amela_client.errors import NoServersError
from amela_client.results import ServerStatus
from amela_client.services import SERVICES

_COLUMNS = (
    "service",
    "address",
    "state",
    "model",
    "fingerprint",
    "device",
    "at once + queue",
    "last heard of",
    "SLURM job",
)


def servers_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    server: connection.Server = None,
    registry: connection.Registry = None,
    certificate: connection.Certificate = None,
    token: connection.Token = None,
    client_certificate: connection.ClientCertificate = None,
    client_key: connection.ClientKey = None,
) -> None:
    """Show which servers there are, what they run and whether they take calls.

    ```
    amela-client servers --registry /shared/amela
    ```

    Exit code 1: there is none.
    """
    error_console()
    trust = Trust(certificate, token, client_certificate, client_key)
    servers = connection.choose(server, registry, trust=trust)
    found = until_signal(_ask(servers))
    if as_json:
        print_json(found)
    elif found:
        _print_table(found)
    if not found:
        commands = " or ".join(f"`{service.command}`" for service in SERVICES.values())
        raise NoServersError(
            f"there is no server in {Discovery(registry, server or (), trust).describe()}. Start one with"
            f" {commands}, or name another registry with --registry DIR"
        )


async def _ask(servers: connection.Connection) -> list[ServerStatus]:
    async with AmelaClient(servers.registry, servers.servers, trust=servers.trust) as client:
        return await client.servers()


def _print_table(found: list[ServerStatus]) -> None:
    console = output_console()
    console.print(table(_COLUMNS, map(_cells, found)))
    for status in found:
        if status.problem:
            about = "" if status.endpoint in status.problem else f"{status.endpoint}: "
            console.print(f"{about}{status.problem}", markup=False, soft_wrap=True)


def stage_of(status: ServerStatus) -> str:
    """Return the stage of a server's service: vad, asr, sts."""
    return status.service.partition(".")[2].partition(".")[0] or status.service


def model_of(status: ServerStatus) -> str:
    """Return the engine and the model that a server runs, if it says so."""
    return f"{status.model.engine} {status.model.name}" if status.model else ""


def device_of(status: ServerStatus) -> str:
    """Return what a server computes on: a GPU with its memory, or a device."""
    if status.gpu:
        return f"{status.gpu.name} {status.gpu.memory_mib:,} MiB"
    return status.model.device if status.model else ""


def capacity_of(status: ServerStatus) -> str:
    """Return how many requests a server takes: at once, and in its queue."""
    return f"{status.concurrency} + {status.queue}" if status.concurrency else ""


def _cells(status: ServerStatus) -> list[str]:
    age = status.heartbeat_age
    return [
        stage_of(status),
        status.endpoint,
        health_of(status),
        model_of(status),
        status.model.fingerprint if status.model else "",
        device_of(status),
        capacity_of(status),
        "" if age is None else f"{age:.0f} s ago",
        status.slurm_job,
    ]


def health_of(status: ServerStatus) -> str:
    """Say whether a server takes calls."""
    return "serving" if status.serving else "not serving" if status.reachable else "unreachable"

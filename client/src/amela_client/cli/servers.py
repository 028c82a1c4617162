"""``amela-client servers``: which servers there are, and how they do."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amela_client.cli import connection
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
_PLAIN_WIDTH = 200


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
        print(json.dumps([_as_json(status) for status in found], indent=2))
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


def _as_json(status: ServerStatus) -> dict[str, object]:
    return asdict(status) | {"model": status.model._asdict() if status.model else None}


def _print_table(found: list[ServerStatus]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines for programs are not to be wrapped or cut to fit a screen that is not there.
        console.width = _PLAIN_WIDTH
    table = Table(*_COLUMNS, box=SIMPLE_HEAD)
    for status in found:
        table.add_row(*map(escape, _cells(status)))
    console.print(table)
    for status in found:
        if status.problem:
            about = "" if status.endpoint in status.problem else f"{status.endpoint}: "
            console.print(f"{about}{status.problem}", markup=False, soft_wrap=True)


def _cells(status: ServerStatus) -> list[str]:
    model = status.model
    age = status.heartbeat_age
    return [
        status.service.partition(".")[2].partition(".")[0] or status.service,
        status.endpoint,
        "serving" if status.serving else "not serving" if status.reachable else "unreachable",
        f"{model.engine} {model.name}" if model else "",
        model.fingerprint if model else "",
        model.device if model else "",
        f"{status.concurrency} + {status.queue}" if status.concurrency else "",
        "" if age is None else f"{age:.0f} s ago",
        status.slurm_job,
    ]

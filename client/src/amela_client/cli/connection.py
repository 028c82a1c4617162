"""Options that say which servers to call."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from amela_client.client import AmelaClient
from amela_client.endpoint import Trust
from amela_client.local import local_servers
from amela_client.services import Service

_PANEL = "Which servers"

Server = Annotated[
    list[str] | None,
    typer.Option(
        "--server", metavar="HOST:PORT", help="Call this server; may be given again.", rich_help_panel=_PANEL
    ),
]
Registry = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="DIR",
        help="Folder where servers register. Default: AMELA_REGISTRY, the site's, or ~/.amela/registry.",
        readable=False,  # Discovery says whom to ask.
        rich_help_panel=_PANEL,
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local", help="Start a server on this machine, for this run only.", rich_help_panel=_PANEL
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        min=0,
        metavar="SECONDS",
        help="How long to wait while there is no server that takes calls.",
        rich_help_panel=_PANEL,
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="PEM",
        help="Certificate of a --server that no registry describes.",
        rich_help_panel=_PANEL,
    ),
]
Token = Annotated[
    Path | None,
    typer.Option("--token", metavar="FILE", help="Token file of such a server.", rich_help_panel=_PANEL),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option(
        "--client-certificate",
        metavar="PEM",
        help="What to show to servers that want to know the client (mutual TLS).",
        rich_help_panel=_PANEL,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option("--client-key", metavar="PEM", help="Its key.", rich_help_panel=_PANEL),
]


def choose(
    servers: Sequence[str] | None,
    registry: Path | None,
    *,
    local: bool = False,
    wait: float = 0.0,
    trust: Trust | None = None,
    mix_models: bool = False,
) -> "Connection":
    """Make a `Connection` of what was typed.

    Raises
    ------
    typer.BadParameter
        Two of the options exclude each other.
    """
    if local and (servers or registry):
        raise typer.BadParameter(
            "--local starts a server of its own: leave out --server and --registry, or --local"
        )
    return Connection(tuple(servers or ()), registry, trust or Trust(), local, wait, mix_models)


@dataclass(frozen=True)
class Connection:
    """Which servers to call, and how."""

    servers: tuple[str, ...]
    registry: Path | None
    trust: Trust
    local: bool
    wait: float
    mix_models: bool

    @asynccontextmanager
    async def open(self, service: Service) -> AsyncIterator[AmelaClient]:
        """Open a client; with a server of `service` for it alone, if that is asked for."""
        async with AsyncExitStack() as stack:
            registry = self.registry
            if self.local:
                registry = await stack.enter_async_context(local_servers([service]))
            client = AmelaClient(
                registry, self.servers, trust=self.trust, wait=self.wait, mix_models=self.mix_models
            )
            yield await stack.enter_async_context(client)

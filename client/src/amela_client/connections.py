"""The servers that discovery finds, as connections that last."""

import asyncio
import logging

from amela_client.channel import Connection
from amela_client.discovery import Discovery
from amela_client.endpoint import Endpoint
from amela_client.services import Service

log = logging.getLogger(__name__)


class Connections:
    """Source of servers for a `Fleet`: one connection for each endpoint, for as long as it is listed."""

    def __init__(self, discovery: Discovery, service: Service) -> None:
        self._discovery = discovery
        self._service = service
        self._connections: dict[Endpoint, Connection] = {}
        self._reported: set[str] = set()

    async def look(self) -> list[Connection]:
        """List the servers there are now; raises `DiscoveryError`."""
        listing = await asyncio.to_thread(self._discovery.look, self._service.name)
        for problem in listing.problems:
            if problem not in self._reported:
                self._reported.add(problem)
                log.warning("%s", problem)
        # One that has left the list may come back as long as the fleet has not given it up.
        self._connections = {
            endpoint: connection
            for endpoint, connection in self._connections.items()
            if not connection.closed
        }
        for endpoint in listing.endpoints:
            if endpoint not in self._connections:
                self._connections[endpoint] = Connection(endpoint, self._service)
        return [self._connections[endpoint] for endpoint in listing.endpoints]

    def describe(self) -> str:
        """Say where it looks and what to do if nothing is there."""
        service, registry = self._service, self._discovery.registry.folder
        return (
            f"looked for {service.name} in {self._discovery.describe()}. Start one with `{service.command}"
            f" --registry {registry}`, name one with --server HOST:PORT or its registry with --registry DIR,"
            " or let --local start one for this run"
        )

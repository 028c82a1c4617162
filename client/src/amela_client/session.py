"""What all calls of a client share: the servers it knows, and one scheduler for each service."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message

from amela_client.backlog import Outcome, Task
from amela_client.connections import Connections
from amela_client.discovery import Discovery
from amela_client.endpoint import Trust
from amela_client.fleet import Fleet
from amela_client.results import Model, ServerStatus
from amela_client.scheduler import Scheduler
from amela_client.services import Service
from amela_client.survey import survey


class Session:
    """The servers that a client calls, for as long as it is open.

    Parameters
    ----------
    registry
        Registry folder. Default: ``AMELA_REGISTRY``, or ``~/.amela/registry``.
    servers
        Addresses ``HOST:PORT`` to call instead of all that the registry has.
    trust
        Certificate and token for addresses that are not in the registry.
    wait
        Seconds without any server after which a call gives up.
    mix_models
        Whether servers with different models may answer for the same service.

    Raises
    ------
    DiscoveryError
        If an address cannot be one.
    """

    def __init__(
        self,
        registry: str | os.PathLike[str] | None = None,
        servers: Sequence[str] = (),
        *,
        trust: Trust | None = None,
        wait: float = 10.0,
        mix_models: bool = False,
    ) -> None:
        self._discovery = Discovery(Path(registry) if registry is not None else None, servers, trust)
        self._wait = wait
        self._mix_models = mix_models
        self._schedulers: dict[str, Scheduler[Any]] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._schedulers.clear()
        await self._stack.aclose()

    async def models(self, service: Service) -> list[Model]:
        """Wait for a server of this service, and say what those there are run: one model, unless mixed.

        Raises
        ------
        NoServersError, DiscoveryError, MixedModelsError, CallError
            If there is no server to call.
        """
        fleet = await self._fleet(service)
        await fleet.wait_for_server()
        return list(map(Model.from_proto, fleet.models))

    def serving(self, service: Service) -> int:
        """Count the servers that take this client's calls now; 0 before the first call."""
        scheduler = self._schedulers.get(service.name)
        return len(scheduler.fleet.serving) if scheduler else 0

    async def servers(self) -> list[ServerStatus]:
        """Ask every server that can be found, of whatever service, how it does.

        Raises
        ------
        DiscoveryError
            If the registry cannot be used.
        """
        return await survey(self._discovery)

    async def _one(self, service: Service, request: Message, seconds: float | None = None) -> Any:
        scheduler = await self._scheduler(service)
        async with aclosing(scheduler.run([Task(0, request, seconds or 0.0)])) as outcomes:
            outcome = await anext(outcomes)
        if outcome.error:
            raise outcome.error
        return outcome.response

    async def _all(
        self, service: Service, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[Any], None]:
        async with aclosing((await self._scheduler(service)).run(tasks)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _fleet(self, service: Service) -> Fleet[Any]:
        return (await self._scheduler(service)).fleet

    async def _scheduler(self, service: Service) -> Scheduler[Any]:
        if not self._is_open:
            raise RuntimeError("this client is not open: use it as `async with AmelaClient() as client:`")
        async with self._opening:
            if service.name not in self._schedulers:
                source = Connections(self._discovery, service)
                scheduler = Scheduler[Any](source, mix_models=self._mix_models, patience=self._wait)
                self._schedulers[service.name] = await self._stack.enter_async_context(scheduler)
        return self._schedulers[service.name]

"""The servers of one service as they come, break, return and go."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from amela.common.v1.server_pb2 import Model, ServerInfo
from google.protobuf.message import Message

from amela_client.errors import CallError, ClientError, DiscoveryError, MixedModelsError, NoServersError
from amela_client.pacing import Pace, Window, backoff
from amela_client.status import BAD_CERTIFICATE

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)

_LOOK_SECONDS = 2.0
_FIRST_LOOK_SECONDS = 3.0
_LONGEST_PROBE_PAUSE_SECONDS = 5.0
# What a user has to mend is not waited for; but a server may be restarting under another certificate.
_HOPELESS_SECONDS = 2.0
_TROUBLE_SECONDS = 0.25
_PROBLEMS_SHOWN = 5
_REFUSALS = ({"BAD_TOKEN"}, {"UNAUTHENTICATED"}, {BAD_CERTIFICATE})


class Server(Protocol[AnswerT_co]):
    """A server, however it is reached. `CallError` is all that its methods raise."""

    name: str
    """``HOST:PORT``."""

    async def probe(self) -> ServerInfo:
        """Ask whether the server takes calls, and what it is."""

    async def call(self, request: Message, timeout: float) -> AnswerT_co:  # noqa: ASYNC109 - a server's business
        """Send one request and wait at most `timeout` seconds for its result."""

    def time_left(self) -> float:
        """Tell the seconds until the server drains by itself; infinite if it has not said."""

    async def close(self) -> None:
        """Give up what the connection holds."""


class Source(Protocol[AnswerT_co]):
    """Knows which servers there are now."""

    async def look(self) -> Collection[Server[AnswerT_co]]:
        """List them, a known server as the same object; raise `DiscoveryError` if that is impossible."""

    def describe(self) -> str:
        """Say for a message where it looks and what to do if nothing is there."""


class Member(Generic[ResultT]):
    """One server in the fleet."""

    def __init__(self, server: Server[ResultT]) -> None:
        self.server = server
        self.window = Window()
        self.pace = Pace()
        self.info = ServerInfo()
        self.serving = False
        self.drains_at = math.inf
        """When it takes no more calls, by the event loop's clock."""
        self.listed = True
        self.problem: CallError | None = None
        self.falls = 0
        """Suspensions since its last answer."""
        self.tried = asyncio.Event()
        """Its first probe has ended."""
        self.revival: asyncio.Task[None] | None = None


class Fleet(Generic[ResultT]):
    """Keeps watch over the servers of one service.

    Parameters
    ----------
    source
        Asked again every few seconds.
    on_serving
        Called with each server that begins, or begins again, to take calls.
    mix_models
        Whether servers whose models differ may serve together.
    patience
        Seconds without any server after which there is no point in waiting.
    """

    def __init__(
        self,
        source: Source[ResultT],
        on_serving: Callable[[Member[ResultT]], None],
        *,
        mix_models: bool = False,
        patience: float = 10.0,
    ) -> None:
        self._source = source
        self._on_serving = on_serving
        self._mix_models = mix_models
        self.patience = patience
        self._members: dict[Server[ResultT], Member[ResultT]] = {}
        self._fingerprint: str | None = None
        self._looked = asyncio.Event()
        self._appeared = asyncio.Event()
        self._idle_since = 0.0
        self._watch: asyncio.Task[None] | None = None
        self.serving: list[Member[ResultT]] = []
        """Those that take calls now."""
        self.concurrency = 0
        """Calls that they work on at the same time, together."""

    @property
    def models(self) -> list[Model]:
        """Models of the servers that take calls now, each once."""
        return list({member.info.model.fingerprint: member.info.model for member in self.serving}.values())

    async def start(self) -> None:
        """Look for servers and ask those found what they are.

        Raises
        ------
        DiscoveryError
            If the source cannot be used.
        MixedModelsError
            If they run different models and `mix_models` is off.
        """
        self._idle_since = asyncio.get_running_loop().time()
        self._list(await self._source.look())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                for member in list(self._members.values()):
                    await member.tried.wait()
        self._refuse_mixture()
        self._looked.set()
        self._watch = asyncio.create_task(self._keep_looking(), name="servers")

    async def wait_for_server(self) -> None:
        """Wait until a server takes calls.

        Raises
        ------
        NoServersError, CallError
            As `trouble` says.
        """
        since = asyncio.get_running_loop().time()
        while not self.serving:
            if error := self.trouble(since):
                raise error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TROUBLE_SECONDS):
                    await self._appeared.wait()

    def trouble(self, since: float) -> ClientError | None:
        """Say why nothing can be expected any more: no server for too long, or none that ever will be.

        Parameters
        ----------
        since
            When the waiting began, by the event loop's clock.

        Returns
        -------
        ClientError or None
            `CallError` if all servers refuse this client for one reason, or else `NoServersError`.
        """
        if self.serving or not self._looked.is_set():
            return None
        problems = [member.problem for member in self._members.values() if member.problem]
        hopeless = len(problems) == len(self._members) > 0 and not any(
            problem.transient for problem in problems
        )
        lost = asyncio.get_running_loop().time() - max(since, self._idle_since)
        if lost < (min(_HOPELESS_SECONDS, self.patience) if hopeless else self.patience):
            return None
        if {problem.reason for problem in problems} in _REFUSALS:
            return problems[0]
        found = "".join(f"\n  {problem.message}" for problem in problems[:_PROBLEMS_SHOWN])
        if len(problems) > _PROBLEMS_SHOWN:
            found += f"\n  and {len(problems) - _PROBLEMS_SHOWN} more"
        return NoServersError(f"no server takes calls: {self._source.describe()}{found}")

    def check(self) -> None:
        """Raise the fault of this program that ended the search for servers, if there was one."""
        if self._watch and self._watch.done():
            self._watch.result()

    def suspend(self, member: Member[ResultT], error: CallError) -> None:
        """Give a server no more calls until its health says that it takes them."""
        member.problem = error
        if not member.serving:
            return
        member.serving = False
        member.falls += 1
        self._count()
        self._revive(member, backoff(member.falls))
        log.warning("%s is suspended: %s", member.server.name, error.message)

    async def close(self) -> None:
        """Stop watching and close every connection."""
        tasks = [member.revival for member in self._members.values() if member.revival]
        if self._watch:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(member.server.close() for member in self._members.values()))
        self._members.clear()
        self.serving.clear()

    async def _keep_looking(self) -> None:
        reported = ""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self._list(await self._source.look())
            except DiscoveryError as error:
                # Whoever is in the fleet stays there: this may be the file system's hiccup.
                if str(error) != reported:
                    reported = str(error)
                    log.warning("no new servers can be found: %s", error)

    def _list(self, servers: Collection[Server[ResultT]]) -> None:
        for server in servers:
            if server not in self._members:
                member = self._members[server] = Member(server)
                self._revive(member, 0.0)
        for server, member in self._members.items():
            member.listed = server in servers

    def _revive(self, member: Member[ResultT], delay: float) -> None:
        member.revival = asyncio.create_task(
            self._probe_until_serving(member, delay), name=f"probe {member.server.name}"
        )

    async def _probe_until_serving(self, member: Member[ResultT], delay: float) -> None:
        failures = 0
        while True:
            await asyncio.sleep(delay)
            try:
                member.info = await member.server.probe()
                member.problem = None
                member.tried.set()
                # At the start all servers are asked before any is used: which of two models is the odd
                # one must not depend on who answers first.
                await self._looked.wait()
                self._check_model(member)
                break
            except CallError as error:
                member.problem = error
                member.tried.set()
            # One that drains has left the registry, and still answers what it works on.
            if not member.listed and not member.window.in_flight:
                del self._members[member.server]
                await member.server.close()
                return
            failures += 1
            delay = min(backoff(failures), _LONGEST_PROBE_PAUSE_SECONDS)
        member.window.resize(member.info.capacity)
        member.drains_at = asyncio.get_running_loop().time() + member.server.time_left()
        member.serving = True
        self._count()
        self._appeared.set()
        self._on_serving(member)

    def _check_model(self, member: Member[ResultT]) -> None:
        model = member.info.model
        if self._fingerprint is None:
            self._fingerprint = model.fingerprint
        if model.fingerprint != self._fingerprint and not self._mix_models:
            raise CallError(
                "OTHER_MODEL",
                f"{member.server.name} is not used: it runs {_describe(model)}, while this run began with"
                f" fingerprint {self._fingerprint}",
            )

    def _count(self) -> None:
        if self.serving:
            self._idle_since = asyncio.get_running_loop().time()
        self.serving = [member for member in self._members.values() if member.serving]
        if not self.serving:
            self._appeared.clear()
        self.concurrency = sum(member.window.concurrency for member in self.serving)

    def _refuse_mixture(self) -> None:
        models = {
            member.info.model.fingerprint: member
            for member in self._members.values()
            if member.tried.is_set() and member.problem is None
        }
        if len(models) > 1 and not self._mix_models:
            found = "".join(
                f"\n  {member.server.name}: {_describe(member.info.model)}" for member in models.values()
            )
            raise MixedModelsError(
                "the servers found run different models, whose results would differ; choose some with"
                f" --server, or mix them with --mix-models:{found}"
            )


def _describe(model: Model) -> str:
    return f"{model.engine} {model.name}, fingerprint {model.fingerprint}"

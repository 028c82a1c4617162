"""Servers on this machine for as long as something needs them, and no longer."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from amela_client.discovery import Discovery
from amela_client.errors import ClientError, NoServersError
from amela_client.services import Service
from amela_client.survey import survey

_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 2
_END_SECONDS = 10.0


class LocalServerError(ClientError):
    """A server that was to run for the client alone is not installed, or ended when it should not."""


@asynccontextmanager
async def local_servers(services: Sequence[Service]) -> AsyncIterator[Path]:
    """Start one server for each service on loopback, and end them with the block.

    They see every file that the user may read, listen on loopback with TLS and a token of their own, and
    drain as soon as their standard input ends: when the block does, or when this process is killed.

    Yields
    ------
    Path
        Registry folder in which the servers can be found, all of them ready.

    Raises
    ------
    LocalServerError
        A server's program is not installed, or it ended before the block did.
    """
    programs = [find_program(service.command) for service in services]
    async with AsyncExitStack() as stack:
        # Only its owner may look into such a folder: it holds the token.
        folder = tempfile.TemporaryDirectory(prefix="amela-local-", ignore_cleanup_errors=True)
        registry = Path(stack.enter_context(folder)) / "registry"
        servers = [await stack.enter_async_context(_LocalServer(program, registry)) for program in programs]
        await _wait_until_ready(servers, services, registry)
        try:
            yield registry
        except NoServersError:
            for server in servers:
                server.refuse_if_ended()
            raise


def find_program(name: str) -> str:
    """Find a server's program beside this Python, or on the PATH.

    Raises
    ------
    LocalServerError
        It is at neither.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise LocalServerError(
            f"--local needs {name}, which is neither in {beside.parent} nor on the PATH: install it there"
            " (from services/ of AMELA's sources), or leave --local out to use servers that run elsewhere"
        )
    return found


class _LocalServer:
    def __init__(self, program: str, registry: Path) -> None:
        self._program = program
        self._registry = registry
        self._log = registry.with_name(f"{Path(program).name}.log")

    async def __aenter__(self) -> "_LocalServer":
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                *("--registry", str(self._registry), "--audio-root", "/", "--host", "127.0.0.1"),
                *("--port", "0", "--drain-seconds", str(_DRAIN_SECONDS), "--until-stdin-closes"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the client, which then ends its servers in order.
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def refuse_if_ended(self) -> None:
        """Raise `LocalServerError` with the server's last words if it has ended."""
        code = self._process.returncode
        if code is not None:
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            name, words = Path(self._program).name, last_words(self._log.read_bytes())
            raise LocalServerError(f"{name}, started for this run, {ended}; its last words: {words}")


async def _wait_until_ready(
    servers: Sequence[_LocalServer], services: Sequence[Service], registry: Path
) -> None:
    while True:
        statuses = await survey(Discovery(registry))
        serving = {status.service for status in statuses if status.serving}
        if all(service.name in serving for service in services):
            return
        for server in servers:
            server.refuse_if_ended()
        await asyncio.sleep(_POLL_SECONDS)


def last_words(log: bytes) -> str:
    """Return the last line that a server wrote, or its message if the line is one of its JSON logs."""
    lines = log.decode(errors="replace").strip().splitlines()
    if not lines:
        return "none"
    try:
        record = json.loads(lines[-1])
        return ": ".join(str(record[name]) for name in ("message", "error") if name in record)
    except (ValueError, KeyError, TypeError):
        return lines[-1]

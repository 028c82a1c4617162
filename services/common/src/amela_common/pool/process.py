"""One worker process as the server holds it."""

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from typing import Self

from amela_common.errors import ConfigError
from amela_common.pool.protocol import HEADER, Broken, Failed, Reply, Setup, encode

log = logging.getLogger(__name__)

# Longer than an idle worker needs to end, shorter than a server's user waits.
_FAREWELL = 5.0


class WorkerLostError(Exception):
    """The process has died; the message says how."""


class WorkerProcess:
    """A process that runs `amela_common.pool.worker`, and the socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        # Length of a message whose header has come: a caller may be cancelled before the rest has.
        self._awaited: int | None = None
        self.pid = process.pid

    @classmethod
    async def start(cls, name: str, factory: bytes) -> Self:
        """Start a process and wait until its factory, given pickled, has made the handler.

        Raises
        ------
        ConfigError
            If the factory raises anything, the process dies, or this host has none to give.
        """
        try:
            worker = await cls._spawn(name)
        except (OSError, RuntimeError) as error:
            # A RuntimeError where there is no thread to be had that waits for the process's end.
            raise ConfigError(
                f"no {name} worker can be started ({error}): look at the limits on processes, open files"
                " and memory"
            ) from error
        try:
            await worker.send(encode(Setup(sys.path, factory)))
            reply = await worker.receive()
            if isinstance(reply, Failed):
                raise reply.error
            if isinstance(reply, Broken):
                log.error("a worker could not be set up: %s", reply.traceback, extra={"pool": name})
                raise ConfigError(f"a {name} worker could not be set up: {reply.summary}")
        except WorkerLostError as lost:
            raise ConfigError(f"a {name} worker died while it was set up ({lost})") from lost
        except BaseException:
            await worker.kill()
            raise
        return worker

    @classmethod
    async def _spawn(cls, name: str) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                reader, writer = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "amela_common.pool.worker",
                    str(theirs.fileno()),
                    name,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # There is a worker for each core: libraries' own threads would only fight for them.
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            except BaseException:
                writer.close()
                raise
        return cls(process, reader, writer)

    @property
    def alive(self) -> bool:
        """Whether nothing is known of its death."""
        return self._process.returncode is None and not self._reader.at_eof()

    async def send(self, message: bytes) -> None:
        """Send an encoded `Command`; raise `WorkerLostError` if nobody is there."""
        try:
            self._writer.write(message)
            await self._writer.drain()
        except ConnectionError:
            raise await self._lost() from None

    async def receive(self) -> Reply:
        """Wait for the next message; raise `WorkerLostError` if none can come."""
        try:
            if self._awaited is None:
                (self._awaited,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            body = await self._reader.readexactly(self._awaited)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._lost() from None
        self._awaited = None
        message: Reply = pickle.loads(body)  # noqa: S301 (from our own child)
        return message

    async def died(self) -> str:
        """Wait until the process is gone, and say how it went."""
        code = await self._process.wait()
        self._writer.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with code {code}"

    async def kill(self) -> str:
        """End the process at once, whatever it does, and say how it went."""
        if self._process.returncode is None:
            # asyncio's kill() may reap the process behind its watcher's back, which loses the exit code.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return await self.died()

    async def close(self) -> None:
        """Let the process end by itself, and kill it if it takes too long."""
        self._writer.write_eof()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self.died()
        except TimeoutError:
            await self.kill()

    async def _lost(self) -> WorkerLostError:
        # A process that has closed its socket is gone, or of no use.
        return WorkerLostError(await self.kill())

"""What the server shell asks of a service, and what it gives to one."""

import asyncio
import logging
from typing import Protocol

import grpc.aio
from amela.common.v1.server_pb2 import ServerInfo

from amela_common.server.metrics import Metrics

log = logging.getLogger(__name__)


class Service(Protocol):
    """A stage behind gRPC. The shell calls these in this order, `close` whatever happened before."""

    name: str
    """Full gRPC name, such as ``amela.vad.v1.VadService``."""

    def validate(self) -> None:
        """Look for what cannot work before anything costly; raise `ConfigError`."""

    async def load(self) -> ServerInfo:
        """Load the engine, run a canary through it, and say what it is; raise `ConfigError`.

        The shell adds version and limits to the very message that is returned.
        """

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the servicer."""

    async def close(self) -> None:
        """Free everything, also after a `load` that failed half way."""


class Runtime:
    """What a service may use of the server that runs it."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.failure: str | None = None
        self.suspended: str | None = None
        self.health_changed = asyncio.Event()
        self.stop = asyncio.Event()

    def suspend(self, why: str) -> None:
        """Report NOT_SERVING until `resume`: the engine is away, and may come back by itself."""
        log.error("out of service", extra={"why": why})
        self.suspended = why
        self.health_changed.set()

    def resume(self) -> None:
        """Report SERVING again."""
        log.info("in service again")
        self.suspended = None
        self.health_changed.set()

    def fail(self, why: str) -> None:
        """Drain, then exit with an error: the engine is beyond repair and a restart is the cure."""
        if self.failure is None:
            self.failure = why
            log.error("the server must go", extra={"why": why})
        self.stop.set()

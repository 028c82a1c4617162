"""A server's entry in the registry folder, kept fresh for as long as it serves."""

import asyncio
import contextlib
import logging
import socket
import threading
import uuid
from collections.abc import Mapping

from amela.common.v1.registration_pb2 import Registration, SlurmAllocation
from google.protobuf.json_format import MessageToJson

from amela_common.errors import ConfigError
from amela_common.server.registry_folder import RegistryFolder

log = logging.getLogger(__name__)


def new_server_id(service: str) -> str:
    """Make an id such as ``vad-node7-3f9a…`` that no other start of a server has."""
    return f"{service.split('.')[1]}-{this_host()}-{uuid.uuid4().hex[:12]}"


def this_host() -> str:
    """Name this host as the ids of its servers do."""
    return socket.gethostname().split(".")[0].lower()


def advertised_host(bind_host: str, asked_for: str | None) -> str:
    """Find the name that other nodes reach this server by.

    Raises
    ------
    ConfigError
        If this host's own name means nothing to the resolver.
    """
    if asked_for:
        return asked_for
    if bind_host not in ("0.0.0.0", "::", "[::]"):  # noqa: S104 - compared, not bound
        return bind_host.strip("[]")
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror as error:
        raise ConfigError(
            f"this host's name {name!r} cannot be resolved ({error}): give --advertise an address"
            " that other nodes reach it by"
        ) from error
    return name


def slurm_allocation(environment: Mapping[str, str]) -> SlurmAllocation | None:
    """Read from SLURM's variables where this process runs.

    Raises
    ------
    ConfigError
        If a variable of SLURM's is no number where it should be one.
    """
    if "SLURM_JOB_ID" not in environment:
        return None

    def number(name: str) -> int:
        text = environment.get(name)
        try:
            return int(text) if text else 0
        except ValueError as error:
            raise ConfigError(f"{name}={text!r} is not a number; unset it or run under SLURM") from error

    allocation = SlurmAllocation(
        job_id=number("SLURM_JOB_ID"),
        restart_count=number("SLURM_RESTART_COUNT"),
        node=environment.get("SLURMD_NODENAME", ""),
    )
    if environment.get("SLURM_ARRAY_TASK_ID"):
        allocation.array_task_id = number("SLURM_ARRAY_TASK_ID")
    if end := number("SLURM_JOB_END_TIME"):
        allocation.end.FromSeconds(end)
    return allocation


class RegistrationFile:
    """Writes, renews and removes one registration."""

    def __init__(self, folder: RegistryFolder, registration: Registration) -> None:
        self._folder = folder
        self._name = f"{registration.id}.json"
        self._registration = registration
        # A heartbeat that is being written goes on when the task that began it is cancelled.
        self._lock = threading.Lock()
        self._removed = False

    def write(self) -> None:
        """Write the registration with a new heartbeat, whole or not at all; never once it is removed.

        Raises
        ------
        OSError
            If the registry folder cannot be written.
        """
        with self._lock:
            if self._removed:
                return
            self._registration.heartbeat.GetCurrentTime()
            self._folder.write(self._name, MessageToJson(self._registration))

    def remove(self) -> None:
        """Take the registration away for good; it may be gone already."""
        with self._lock, contextlib.suppress(OSError):
            self._removed = True
            (self._folder.path / self._name).unlink(missing_ok=True)

    async def renew_forever(self, every_seconds: float) -> None:
        """Renew the heartbeat until cancelled; a full or vanished file system is waited out."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await asyncio.to_thread(self.write)
            except OSError as error:
                log.warning("the registration could not be renewed", extra={"error": str(error)})

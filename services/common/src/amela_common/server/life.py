"""A server's life: validate, load, bind, register, serve, drain."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version

import grpc.aio
from amela.common.v1.registration_pb2 import Registration, SlurmAllocation
from amela.common.v1.server_pb2 import ServerInfo
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from amela_common.durations import to_duration
from amela_common.errors import ConfigError
from amela_common.server import logs
from amela_common.server.calls import CallInterceptor
from amela_common.server.dead_registrations import remove_dead
from amela_common.server.metrics import Metrics
from amela_common.server.registration import (
    RegistrationFile,
    advertised_host,
    new_server_id,
    slurm_allocation,
)
from amela_common.server.registry_folder import RegistryFolder
from amela_common.server.security import ServerIdentity, make_identity
from amela_common.server.service import Runtime, Service
from amela_common.server.settings import ServerSettings, SettingsT, load_settings

log = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# SLURM tells a job's step and its script, which tells the step in its turn.
_SAME_SIGNAL_SECONDS = 2.0
# Threads at the end of their work need no longer than this; one that loads a model may take minutes.
_GRACE_SECONDS = 1.0


def run(
    make_service: Callable[[SettingsT, Runtime], Service],
    settings_type: type[SettingsT],
    distribution: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a server to its end.

    Parameters
    ----------
    make_service
        Makes the service from its settings; nothing costly happens there.
    distribution
        Whose version the server reports.
    description
        First lines of ``--help``.

    Returns
    -------
    int
        0 after a drain, 1 if the engine was lost or the server failed, 2 if it could not start
        as it was asked to.
    """
    others = set(threading.enumerate())
    for number in _SIGNALS:
        # Nothing has begun that would have to be ended in order.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        settings = load_settings(settings_type, description, argv)
        logs.configure(settings.log_level)
        code = asyncio.run(_Life(settings, make_service, distribution).live())
    except ConfigError as error:
        print(f"{distribution}: {error}", file=sys.stderr)
        code = 2
    for number in _SIGNALS:
        # The request that has been followed may come once more.
        signal.signal(number, signal.SIG_IGN)
    _leave_threads(code, others)
    return code


def _leave_threads(code: int, others: Collection[threading.Thread]) -> None:
    """End the process here if one of its threads would hold up its end with work that nobody waits for."""
    until = time.monotonic() + _GRACE_SECONDS
    started = [thread for thread in threading.enumerate() if thread not in others and not thread.daemon]
    for thread in started:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in started):
        logging.shutdown()
        os._exit(code)


class _Life:
    def __init__(
        self,
        settings: SettingsT,
        make_service: Callable[[SettingsT, Runtime], Service],
        distribution: str,
    ) -> None:
        self._settings: ServerSettings = settings
        self._metrics = Metrics()
        self._runtime = Runtime(self._metrics)
        self._service = make_service(settings, self._runtime)
        self._version = version(distribution)
        self._signalled: float | None = None

    async def live(self) -> int:
        self._watch_signals()
        settings, service = self._settings, self._service
        registry = RegistryFolder(settings.registry)
        token = registry.prepare()
        remove_dead(registry.path)
        host = advertised_host(settings.host, settings.advertise)
        slurm = slurm_allocation(os.environ)
        server_id = new_server_id(service.name)
        identity = make_identity(settings, server_id, host)
        service.validate()
        try:
            loading = asyncio.ensure_future(service.load())
            if not await self._finished_before_stop(loading):
                return self._exit_code()
            info = loading.result()
            info.version = self._version
            info.limits.max_message_bytes = settings.max_message_bytes
            if settings.max_audio_seconds is not None:
                info.limits.max_audio.CopyFrom(to_duration(settings.max_audio_seconds))

            guard = CallInterceptor(token, self._metrics)
            server = grpc.aio.server(
                interceptors=[guard],
                options=[
                    ("grpc.max_receive_message_length", settings.max_message_bytes),
                    ("grpc.max_send_message_length", settings.max_message_bytes),
                    # Two servers must never share a port unseen.
                    ("grpc.so_reuseport", 0),
                    # Clients ping idle channels to notice a vanished node.
                    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ],
            )
            health_servicer = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
            service.add_to(server)
            reflection.enable_server_reflection(
                (service.name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
            port = self._bind(server, identity.credentials)
            metrics_port = self._serve_metrics()
            registration = self._describe(info, identity, slurm)
            registration.id, registration.host = server_id, host
            registration.port, registration.metrics_port = port, metrics_port
            await server.start()
            entry = RegistrationFile(registry, registration)
            await self._show_health(health_servicer)
            following = asyncio.create_task(self._follow_health(health_servicer), name="health")
            heartbeat = self._register(entry)
            self._log_start(host, port, info)
            if registration.HasField("drains"):
                self._stop_at(registration.drains.ToNanoseconds() / 1e9)
            try:
                await self._runtime.stop.wait()
            finally:
                heartbeat.cancel()
                following.cancel()
                # On a thread: a slow file system holds up neither the calls nor the drain.
                removal = asyncio.get_running_loop().run_in_executor(None, entry.remove)
            await health_servicer.enter_graceful_shutdown()
            await self._drain(server, guard)
            await removal
        finally:
            await service.close()
        return self._exit_code()

    def _describe(
        self, info: ServerInfo, identity: ServerIdentity, slurm: SlurmAllocation | None
    ) -> Registration:
        """Fill in what the registration says of the server, but not where it is."""
        registration = Registration(
            service=self._service.name,
            certificate=identity.certificate,
            tls_name=identity.tls_name,
            model=info.model,
            capacity=info.capacity,
            gpu=info.gpu if info.HasField("gpu") else None,
            pid=os.getpid(),
            slurm=slurm,
            version=self._version,
            launch=self._settings.launch,
        )
        registration.started.GetCurrentTime()
        if registration.slurm.HasField("end"):
            end = registration.slurm.end.ToNanoseconds() - round(self._settings.drain_seconds * 1e9)
            registration.drains.FromNanoseconds(end)
        return registration

    async def _finished_before_stop(self, loading: "asyncio.Future[ServerInfo]") -> bool:
        stop = asyncio.ensure_future(self._runtime.stop.wait())
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if loading.done():
            return True
        loading.cancel()
        await asyncio.wait((loading,))
        return False

    async def _show_health(self, servicer: health.aio.HealthServicer) -> None:
        status = _NOT_SERVING if self._runtime.suspended else _SERVING
        for name in ("", self._service.name):
            await servicer.set(name, status)

    async def _follow_health(self, servicer: health.aio.HealthServicer) -> None:
        while True:
            await self._runtime.health_changed.wait()
            self._runtime.health_changed.clear()
            await self._show_health(servicer)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            if self._signalled is None:
                self._signalled = loop.time()
                log.info("draining", extra={"signal": number.name})
                self._runtime.stop.set()
            elif loop.time() - self._signalled > _SAME_SIGNAL_SECONDS:
                os._exit(128 + number)

        def hand_over(number: int, _frame: object) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended before.
                loop.call_soon_threadsafe(on_signal, signal.Signals(number))

        for number in _SIGNALS:
            # The loop's own handlers would end with it, and a signal then kill a process that has drained.
            signal.signal(number, hand_over)
        if self._settings.until_stdin_closes:
            # A daemon thread reads whatever standard input is, and never holds up the end.
            threading.Thread(target=self._watch_stdin, args=(loop,), daemon=True).start()

    def _watch_stdin(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(OSError):  # A descriptor that cannot be read is as good as closed.
            while os.read(0, 4096):
                pass
        log.info("draining: standard input closed")
        with contextlib.suppress(RuntimeError):  # The loop has ended before.
            loop.call_soon_threadsafe(self._runtime.stop.set)

    def _bind(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        host = self._settings.host
        address = f"[{host}]" if ":" in host and not host.startswith("[") else host
        address = f"{address}:{self._settings.port}"
        try:
            if credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {address}: take another --port, or 0 for a free one ({error})"
            ) from error

    def _serve_metrics(self) -> int:
        host, port = self._settings.metrics_host, self._settings.metrics_port
        try:
            return self._metrics.serve(host, port)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {host}:{port} ({error.strerror}): take another --metrics-port"
            ) from error

    def _register(self, entry: RegistrationFile) -> "asyncio.Task[None]":
        try:
            entry.write()
        except OSError as error:
            raise ConfigError(f"--registry {self._settings.registry}: {error.strerror}") from error
        return asyncio.create_task(entry.renew_forever(self._settings.heartbeat_seconds), name="heartbeat")

    def _stop_at(self, moment: float) -> None:
        """Begin to drain at a moment in Unix seconds."""
        delay = max(0.0, moment - time.time())
        asyncio.get_running_loop().call_later(delay, self._runtime.stop.set)

    async def _drain(self, server: grpc.aio.Server, guard: CallInterceptor) -> None:
        guard.draining = True
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await guard.idle.wait()
        except TimeoutError:
            log.warning("the drain ran out of time", extra={"unfinished": guard.in_flight})
        await server.stop(grace=0.5)

    def _log_start(self, host: str, port: int, info: ServerInfo) -> None:
        log.info(
            "serving",
            extra={
                "service": self._service.name,
                "address": f"{host}:{port}",
                "model": info.model.name,
                "fingerprint": info.model.fingerprint,
                "device": info.model.device,
            },
        )

    def _exit_code(self) -> int:
        return 1 if self._runtime.failure else 0

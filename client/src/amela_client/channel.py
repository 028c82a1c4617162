"""A connection to one server: TLS with the very certificate it registered, its token, its calls."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from amela.common.v1.server_pb2 import ServerInfo
from amela.vad.v1 import vad_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from amela_client.endpoint import Endpoint
from amela_client.errors import CallError
from amela_client.services import Service, serialise
from amela_client.status import call_error

PROBE_SECONDS = 3.0

_OPTIONS = [
    # The server says what is too large, before it is sent back.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A node that vanished, or a stopped process, answers no ping: its calls then fail in half a minute.
    # Servers take a ping each 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # An hour's recording is an hour without data on the wire; by default two pings are all.
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is back soon; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # One connection for each server, not shared between clients of one process that trust differently.
    ("grpc.use_local_subchannel_pool", 1),
    # Compute nodes are reached directly, whatever proxy leads out of the cluster.
    ("grpc.enable_http_proxy", 0),
]
AnyT = TypeVar("AnyT")

_REQUEST_IDS = itertools.count(1)
_PROCESS_ID = uuid.uuid4().hex[:12]


def open_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    """Open a channel; it connects at the first call.

    Must be called where the event loop runs.
    """
    if not endpoint.certificate:
        return grpc.aio.insecure_channel(endpoint.name, _OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        endpoint.certificate, endpoint.client_key or None, endpoint.client_certificate or None
    )
    name = [("grpc.ssl_target_name_override", endpoint.tls_name)] if endpoint.tls_name else []
    return grpc.aio.secure_channel(endpoint.name, credentials, [*_OPTIONS, *name])


class Connection:
    """One server of one service. `CallError` is all that its calls raise on their own account."""

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.closed = False
        self._service = service
        self._channel = open_channel(endpoint)
        self._authorization = (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()
        self._calls = {method.request: method.bind(self._channel, service.name) for method in service.methods}

    async def call(self, request: Message, timeout: float) -> Any:  # noqa: ASYNC109 - gRPC's own
        """Send one request and wait at most `timeout` seconds for its result."""
        call = self._calls[type(request)]
        try:
            return self._read(await call(request, timeout=timeout, metadata=self._metadata()))
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled the caller: the channel was closed under the call.
            message = f"the connection to {self.name} was closed before it had answered"
            raise CallError("CANCELLED", message, transient=True) from None

    async def probe(self) -> ServerInfo:
        """Ask whether the server takes calls, and what it is."""
        await self.check_health()
        return await self.info()

    def time_left(self) -> float:
        """Seconds until the server drains by itself; infinite if it has not said."""
        return self.endpoint.time_left()

    async def check_health(self) -> None:
        """Ask whether the service takes calls.

        Raises
        ------
        CallError
            With reason NOT_SERVING if it takes none now, NOT_FOUND if the server has no such service.
        """
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=serialise,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(
                health_pb2.HealthCheckRequest(service=self._service.name), timeout=PROBE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                message = (
                    f"{self.name} does not serve {self._service.name}: start {self._service.command} for that"
                )
                raise CallError("NOT_FOUND", message) from error
            raise self._explain(error) from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            message = f"{self.name} is up, but does not take calls: it is loading or about to end"
            raise CallError("NOT_SERVING", message, transient=True)

    async def info(self) -> ServerInfo:
        """Ask what the server runs and how much it takes."""
        get_info: grpc.aio.UnaryUnaryMultiCallable[bytes, ServerInfo] = self._channel.unary_unary(
            f"/{self._service.name}/GetInfo", response_deserializer=self._service.read_info
        )
        empty = b""  # As every service's GetInfoRequest is.
        try:
            return self._read(await get_info(empty, timeout=PROBE_SECONDS, metadata=self._metadata()))
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error

    async def detect_stream(
        self, requests: AsyncIterator[vad_pb2.DetectStreamRequest]
    ) -> AsyncGenerator[vad_pb2.DetectStreamResponse, None]:
        """Send live audio and receive what is found in it."""
        stream = self._channel.stream_stream(
            f"/{self._service.name}/DetectStream",
            request_serializer=serialise,
            response_deserializer=vad_pb2.DetectStreamResponse.FromString,
        )
        try:
            async for response in stream(requests, metadata=self._metadata()):
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error

    async def close(self) -> None:
        """End the connection and whatever calls it still has."""
        self.closed = True
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (*self._authorization, ("x-request-id", f"{_PROCESS_ID}-{next(_REQUEST_IDS)}"))

    def _read(self, result: AnyT | None) -> AnyT:
        # gRPC logs what a deserialiser raises and goes on with None.
        if result is None:
            message = f"{self.name} answered with something that cannot be read: is it of this version?"
            raise CallError("INTERNAL", message, transient=True)
        return result

    def _explain(self, error: grpc.aio.AioRpcError) -> CallError:
        metadata = cast(Any, error.trailing_metadata() or ())
        return call_error(error.code(), error.details() or "", metadata, self.name)

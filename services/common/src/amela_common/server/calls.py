"""What happens around every call: token, request id, counting, failures as statuses."""

from __future__ import annotations  # grpcio's classes are generic in its type stubs only

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import grpc.aio

from amela_common.errors import RequestError
from amela_common.server import logs, status
from amela_common.server.metrics import Metrics

log = logging.getLogger(__name__)

_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_REQUEST_ID = "x-request-id"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards and observes every method but health's.

    Parameters
    ----------
    token
        What callers must send as ``authorization: Bearer TOKEN``.
    """

    def __init__(self, token: str, metrics: Metrics) -> None:
        self._authorization = f"Bearer {token}".encode()
        self._metrics = metrics
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.draining = False
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Choose the handler of one call."""
        method = handler_call_details.method
        if method.startswith(_HEALTH):
            return await continuation(handler_call_details)
        if not self._may_call(handler_call_details.invocation_metadata):
            return _NO_TOKEN
        if self.draining:
            return _DRAINING
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or method.startswith(_REFLECTION):
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _may_call(self, metadata: Any) -> bool:
        # The first one only: a call has one authorization.
        for key, value in metadata or ():
            if key == "authorization":
                given = value if isinstance(value, bytes) else value.encode()
                return hmac.compare_digest(given, self._authorization)
        return False

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        name = method.rpartition("/")[2]
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if not handler.response_streaming:
            unary = handler.stream_unary if handler.request_streaming else handler.unary_unary
            # grpcio's types know only its threads' handlers here.
            inner = cast(Callable[[Any, Context], Awaitable[Any]], unary)

            async def answer(request: Any, context: Context) -> Any:
                call = _Call(self, name, context)
                try:
                    return await inner(request, context)
                except BaseException as error:
                    await call.failed(error)
                finally:
                    call.ended()

            if handler.request_streaming:
                return grpc.stream_unary_rpc_method_handler(answer, **codecs)
            return grpc.unary_unary_rpc_method_handler(answer, **codecs)

        streaming = handler.stream_stream if handler.request_streaming else handler.unary_stream
        stream = cast(Callable[[Any, Context], AsyncIterator[Any]], streaming)

        async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
            call = _Call(self, name, context)
            try:
                async for response in stream(request, context):
                    yield response
            except BaseException as error:
                await call.failed(error)
            finally:
                call.ended()

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(answers, **codecs)
        return grpc.unary_stream_rpc_method_handler(answers, **codecs)


class _Call:
    """One call from its arrival to its end."""

    def __init__(self, guard: CallInterceptor, name: str, context: Context) -> None:
        self._guard = guard
        self._metrics = guard._metrics
        self._name = name
        self._context = context
        self._code = "OK"
        self._since = time.monotonic()
        logs.request_id.set(_request_id_of(context))
        guard.in_flight += 1
        guard.idle.clear()
        self._metrics.in_flight.set(guard.in_flight)

    async def failed(self, error: BaseException) -> NoReturn:
        """Turn what a method raised into the call's status."""
        if isinstance(error, RequestError):
            failure = error
        elif isinstance(error, asyncio.CancelledError):
            self._code = "CANCELLED"
            raise error
        elif not isinstance(error, Exception):
            raise error
        else:
            log.exception("a fault in the server", extra={"method": self._name}, exc_info=error)
            failure = RequestError(
                "INTERNAL", f"the server failed on this item ({type(error).__name__}); its log says more"
            )
        self._code = status.code_of(failure).name
        log.info(
            "call failed",
            extra={"method": self._name, "reason": failure.reason, "error": failure.message},
        )
        await _abort(self._context, failure)

    def ended(self) -> None:
        """Count the call."""
        guard = self._guard
        guard.in_flight -= 1
        if guard.in_flight == 0:
            guard.idle.set()
        seconds = time.monotonic() - self._since
        self._metrics.in_flight.set(guard.in_flight)
        self._metrics.requests.labels(self._name, self._code).inc()
        self._metrics.latency.labels(self._name).observe(seconds)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("call", extra={"method": self._name, "code": self._code, "seconds": round(seconds, 6)})


def _request_id_of(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID:
            return str(value)[:100]
    return uuid.uuid4().hex


def _refusal(error: RequestError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_request: Any, context: Context) -> NoReturn:
        await _abort(context, error)

    # Without a deserializer, so that a stranger's message is never parsed.
    return grpc.stream_unary_rpc_method_handler(cast(Any, refuse))


async def _abort(context: Context, error: RequestError) -> NoReturn:
    details = ((status.DETAILS_KEY, status.details_of(error)),)
    await context.abort(status.code_of(error), status.message_of(error), details)


_NO_TOKEN = _refusal(
    RequestError(
        "BAD_TOKEN",
        "this call has no token or not this registry's: send `authorization: Bearer TOKEN` with the"
        " content of the registry's `token` file",
    )
)
_DRAINING = _refusal(RequestError("DRAINING", "this server is about to end: ask another one"))

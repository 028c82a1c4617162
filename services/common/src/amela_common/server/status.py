"""Failures as gRPC statuses with a stable reason, as the contract's error.proto describes."""

import grpc
from amela.common.v1.error_pb2 import ErrorReason
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from amela_common.durations import to_duration
from amela_common.errors import RequestError

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "amela"

_CODES = {
    "AUDIO_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "AUDIO_UNREADABLE": grpc.StatusCode.PERMISSION_DENIED,
    "AUDIO_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "PATH_FORBIDDEN": grpc.StatusCode.PERMISSION_DENIED,
    "UNSUPPORTED_OPTION": grpc.StatusCode.FAILED_PRECONDITION,
    "OUTPUT_RUNAWAY": grpc.StatusCode.INTERNAL,
    "BAD_TOKEN": grpc.StatusCode.UNAUTHENTICATED,
    "QUEUE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OUT_OF_MEMORY": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "WORKER_LOST": grpc.StatusCode.UNAVAILABLE,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "ENGINE_LOST": grpc.StatusCode.UNAVAILABLE,
    "STORAGE_FAILED": grpc.StatusCode.UNAVAILABLE,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
# Bytes. gRPC carries texts in HTTP/2 headers, of which peers take 8 KiB in all.
_LONGEST_TEXT = 800


def code_of(error: RequestError) -> grpc.StatusCode:
    """Find the code that goes with a reason; most are the caller's to mend."""
    return _CODES.get(error.reason, grpc.StatusCode.INVALID_ARGUMENT)


def details_of(error: RequestError) -> bytes:
    """Serialise the ``google.rpc.Status`` that travels beside code and message."""
    # A reason outside the contract would be an unknown one to every client.
    ErrorReason.Value(f"ERROR_REASON_{error.reason}")
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={key: _carriable(value) for key, value in error.metadata.items()},
    )
    details = [_pack(info)]
    if error.retry_after is not None:
        delay: Duration = to_duration(error.retry_after)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=code_of(error).value[0], message=message_of(error), details=details)
    return bytes(status.SerializeToString())


def message_of(error: RequestError) -> str:
    """Shorten a message to what a peer surely takes."""
    return _carriable(error.message)


def _carriable(text: str) -> str:
    # File names need not be UTF-8; their undecodable bytes come as lone surrogates.
    encoded = text.encode("utf-8", "backslashreplace")
    shortened = encoded[:_LONGEST_TEXT].decode("utf-8", "ignore")
    return shortened if len(encoded) <= _LONGEST_TEXT else shortened + "…"


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed

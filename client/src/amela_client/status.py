"""From gRPC's failures to `CallError`: what failed, and whether another try can help."""

from collections.abc import Iterable

import grpc
from amela.common.v1 import error_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from amela_client.errors import CallError

BAD_CERTIFICATE = "BAD_CERTIFICATE"
"""Reason of the client's own: the server at that address is not the one that was registered."""

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "amela"
_PREFIX = "ERROR_REASON_"
_TRANSIENT_REASONS = {
    value.name.removeprefix(_PREFIX): bool(value.GetOptions().Extensions[error_pb2.transient])
    for value in error_pb2.ErrorReason.DESCRIPTOR.values
}
_TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,  # By the server: the client's own never comes as an error.
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
# As gRPC's OpenSSL words it: another certificate, another name in it, or no TLS at all on one side.
_TLS_FAILURES = (
    "CERTIFICATE_VERIFY_FAILED",
    "Peer name",
    "WRONG_VERSION_NUMBER",
    "Cannot check peer",
    "Hostname Verification Check failed",
)


def call_error(
    code: grpc.StatusCode, details: str, metadata: Iterable[tuple[str, str | bytes]], server: str
) -> CallError:
    """Read what a failed call says about itself.

    Parameters
    ----------
    metadata
        Trailing metadata of the call.
    server
        ``HOST:PORT``, for messages about the connection rather than about the request.
    """
    info, retry_after = _read_details(metadata)
    if info is None or info.domain != _DOMAIN:
        return _plain_error(code, details, server, retry_after)
    message = _bad_token(server) if info.reason == "BAD_TOKEN" else details
    return CallError(
        info.reason,
        message,
        # A newer server may have reasons that this client has not heard of.
        transient=_TRANSIENT_REASONS.get(info.reason, code in _TRANSIENT_CODES),
        retry_after=retry_after,
        metadata=info.metadata,
    )


def _read_details(
    metadata: Iterable[tuple[str, str | bytes]],
) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    content = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    found: error_details_pb2.ErrorInfo | None = None
    retry_after: float | None = None
    if not isinstance(content, bytes):
        return None, None
    try:
        for detail in status_pb2.Status.FromString(content).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                found = info
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        return None, None
    return found, retry_after


def _plain_error(code: grpc.StatusCode, details: str, server: str, retry_after: float | None) -> CallError:
    reason, transient = code.name, code in _TRANSIENT_CODES
    message = f"{server}: {details}"
    match code:
        case grpc.StatusCode.UNAVAILABLE if any(sign in details for sign in _TLS_FAILURES):
            reason, transient = BAD_CERTIFICATE, False
            message = (
                f"{server} does not show the certificate it should: its registration is out of date or"
                f" another server has its port; restart it, or name the right --registry ({details})"
            )
        case grpc.StatusCode.UNAVAILABLE:
            message = f"{server} cannot be reached, or went away: {details}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"{server} did not answer in time"
        case grpc.StatusCode.UNAUTHENTICATED:
            message = _bad_token(server)
        case grpc.StatusCode.UNIMPLEMENTED:
            message = (
                f"{server} does not offer this call: is it an AMELA server of the right kind? ({details})"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "message larger than max" in details:
            # gRPC's own check, on either side; no other try would fit.
            transient = False
            if "Received" in details:
                reason = "AUDIO_TOO_LARGE"
                message = f"the request is larger than {server} takes: send a path, or less audio ({details})"
    return CallError(reason, message, transient=transient, retry_after=retry_after)


def _bad_token(server: str) -> str:
    return (
        f"{server} refused the token: name the registry that the server uses with --registry, or its token"
        " file with --token"
    )

import grpc
import pytest
from amela_client.errors import CallError
from amela_client.status import BAD_CERTIFICATE, call_error
from amela_common.errors import RequestError
from amela_common.server.status import DETAILS_KEY, code_of, details_of, message_of
from google.rpc import error_details_pb2, status_pb2

Code = grpc.StatusCode


def read(
    code: grpc.StatusCode, details: str = "said the server", *trailers: tuple[str, str | bytes]
) -> CallError:
    return call_error(code, details, trailers, "node7:50051")


def as_sent(failure: RequestError) -> CallError:
    return read(code_of(failure), message_of(failure), (DETAILS_KEY, details_of(failure)))


def test_a_reason_comes_through_with_message_and_metadata() -> None:
    error = as_sent(RequestError("AUDIO_NOT_FOUND", "/data/a.wav: no such file", path="/data/a.wav"))
    assert (error.reason, error.message) == ("AUDIO_NOT_FOUND", "/data/a.wav: no such file")
    assert error.metadata == {"path": "/data/a.wav"}
    assert not error.transient


def test_a_full_queue_says_when_to_come_back() -> None:
    error = as_sent(RequestError("QUEUE_FULL", "full", retry_after=2.5))
    assert (error.transient, error.retry_after) == (True, 2.5)


@pytest.mark.parametrize(
    ("reason", "transient"),
    [
        ("QUEUE_FULL", True),
        ("WORKER_LOST", True),
        ("INTERNAL", True),
        ("AUDIO_CORRUPT", False),
        ("BAD_TOKEN", False),
    ],
)
def test_the_contract_says_what_another_try_can_mend(reason: str, transient: bool) -> None:
    assert as_sent(RequestError(reason, "why")).transient is transient


def test_a_refused_token_comes_with_the_cure() -> None:
    assert "--registry" in as_sent(RequestError("BAD_TOKEN", "no token")).message
    assert "--registry" in read(Code.UNAUTHENTICATED).message


@pytest.mark.parametrize(
    "code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED]
)
@pytest.mark.parametrize(
    "trailers",
    [
        (),
        ((DETAILS_KEY, b"\xff\xff\xff no status"),),
        ((DETAILS_KEY, "text"),),
        ((DETAILS_KEY, status_pb2.Status().SerializeToString()),),
    ],
)
def test_codes_without_a_reason_of_ours_speak_for_themselves(
    code: grpc.StatusCode, trailers: tuple[tuple[str, str | bytes], ...]
) -> None:
    error = read(code, "why", *trailers)
    assert (error.reason, error.transient) == (code.name, True)
    assert "node7:50051" in error.message


@pytest.mark.parametrize(
    "code", [Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.DATA_LOSS]
)
def test_other_codes_are_final(code: grpc.StatusCode) -> None:
    assert not read(code).transient


def test_reasons_of_another_domain_are_not_taken_for_ours() -> None:
    details = status_pb2.Status()
    details.details.add().Pack(error_details_pb2.ErrorInfo(reason="AUDIO_NOT_FOUND", domain="example.org"))
    assert read(Code.UNAVAILABLE, "why", (DETAILS_KEY, details.SerializeToString())).reason == "UNAVAILABLE"


def test_a_reason_of_a_newer_server_is_as_final_as_its_code() -> None:
    details = status_pb2.Status()
    details.details.add().Pack(error_details_pb2.ErrorInfo(reason="MOON_TOO_BRIGHT", domain="amela"))
    trailers = (DETAILS_KEY, details.SerializeToString())
    assert read(Code.UNAVAILABLE, "why", trailers).transient
    assert not read(Code.INVALID_ARGUMENT, "why", trailers).transient


def test_a_request_over_grpcs_limit_is_too_large_for_good() -> None:
    error = read(Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (70000000 vs. 67108864)")
    assert (error.reason, error.transient) == ("AUDIO_TOO_LARGE", False)


def test_a_response_over_grpcs_limit_is_not_asked_for_again() -> None:
    error = read(Code.RESOURCE_EXHAUSTED, "SERVER: Sent message larger than max (70000000 vs. 67108864)")
    assert (error.reason, error.transient) == ("RESOURCE_EXHAUSTED", False)


@pytest.mark.parametrize(
    "details",
    [
        "last error: UNKNOWN: Ssl handshake failed (TSI_PROTOCOL_FAILURE): CERTIFICATE_VERIFY_FAILED",
        "last error: UNAUTHENTICATED: Hostname Verification Check failed.",
    ],
)
def test_the_wrong_certificate_names_the_server_and_is_final(details: str) -> None:
    error = read(Code.UNAVAILABLE, details)
    assert (error.reason, error.transient) == (BAD_CERTIFICATE, False)
    assert error.message.startswith("node7:50051")

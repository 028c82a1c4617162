"""Connections to real servers: what is trusted, what is sent, and what failures say."""

import asyncio
import datetime
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from amela.vad.v1 import vad_pb2
from amela_client import CallError, Trust
from amela_client.channel import Connection
from amela_client.discovery import Discovery, Registry
from amela_client.endpoint import Endpoint
from amela_client.services import ASR, VAD, Service
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ECHO = [sys.executable, str(Path(__file__).parents[1] / "common" / "echo_server.py")]


def request(path: str) -> vad_pb2.DetectRequest:
    message = vad_pb2.DetectRequest()
    message.audio.path = path
    return message


def endpoint_of(server: Any) -> Endpoint:
    [found] = [
        endpoint
        for endpoint in Registry(server.registry).read(Trust()).endpoints
        if endpoint.port == server.registration["port"]
    ]
    return found


@asynccontextmanager
async def connected(endpoint: Endpoint, service: Service = VAD) -> AsyncIterator[Connection]:
    connection = Connection(endpoint, service)
    try:
        yield connection
    finally:
        await connection.close()


async def failure(endpoint: Endpoint, path: str = "x", timeout: float = 10.0) -> CallError:  # noqa: ASYNC109
    async with connected(endpoint) as connection:
        with pytest.raises(CallError) as caught:
            await connection.call(request(path), timeout)
    return caught.value


@pytest.fixture(scope="module")
def echo(start_module_server: Any) -> Any:
    return start_module_server(ECHO)


@pytest.fixture(scope="module")
def other(start_module_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start a server of another registry: another certificate, another token."""
    return start_module_server(ECHO, tmp_path_factory.mktemp("other") / "registry")


async def test_a_registered_server_answers(echo: Any) -> None:
    async with connected(endpoint_of(echo)) as connection:
        await connection.check_health()
        result = await connection.call(request("x"), 10.0)
    assert result.no_speech
    assert result.segments == ()


async def test_a_probe_says_what_a_server_is(start_server: Any) -> None:
    fake = str(Path(__file__).parent / "fake_engine_server.py")
    endpoint = endpoint_of(start_server([sys.executable, fake, "--concurrency", "3", "--queue", "5"]))
    async with connected(endpoint, ASR) as connection:
        info = await connection.probe()
    assert (info.capacity.concurrency, info.capacity.queue) == (3, 5)
    assert info.model.fingerprint == "0123456789abcdef"


async def test_another_servers_certificate_is_refused_and_the_server_named(echo: Any, other: Any) -> None:
    endpoint = replace(endpoint_of(echo), certificate=endpoint_of(other).certificate)
    error = await failure(endpoint)
    assert (error.reason, error.transient) == ("BAD_CERTIFICATE", False)
    assert endpoint.name in error.message


async def test_the_right_certificate_under_another_name_is_refused(echo: Any) -> None:
    error = await failure(replace(endpoint_of(echo), tls_name="somebody.else"))
    assert error.reason == "BAD_CERTIFICATE"


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_another_token_is_refused_with_the_cure(echo: Any, token: str) -> None:
    error = await failure(replace(endpoint_of(echo), token=token))
    assert (error.reason, error.transient) == ("BAD_TOKEN", False)
    assert "--registry" in error.message


async def test_health_needs_no_token(echo: Any) -> None:
    async with connected(replace(endpoint_of(echo), token="")) as connection:
        await connection.check_health()


async def test_tls_spoken_to_a_server_without_it_is_told_apart(echo: Any, start_server: Any) -> None:
    plain = start_server([*ECHO, "--insecure"])
    endpoint = replace(endpoint_of(plain), certificate=endpoint_of(echo).certificate)
    assert (await failure(endpoint)).reason == "BAD_CERTIFICATE"


async def test_a_server_without_tls_on_loopback_still_wants_its_token(start_server: Any) -> None:
    endpoint = endpoint_of(start_server([*ECHO, "--insecure"]))
    async with connected(endpoint) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech
    assert (await failure(replace(endpoint, token=""))).reason == "BAD_TOKEN"


async def test_an_address_typed_in_finds_its_certificate_in_the_registry(echo: Any) -> None:
    discovery = Discovery(echo.registry, [f"localhost:{echo.registration['port']}"])
    [endpoint] = discovery.look(VAD.name).endpoints
    async with connected(endpoint) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech


async def test_files_can_stand_in_for_a_registry(echo: Any, tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    certificate.write_text(echo.registration["certificate"])
    trust = Trust(certificate=certificate, token=echo.registry / "token")
    [endpoint] = Discovery(tmp_path / "none", [echo.target], trust).look(VAD.name).endpoints
    async with connected(replace(endpoint, tls_name=echo.registration["tlsName"])) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech


async def test_a_client_certificate_is_shown_to_servers_that_ask_for_it(
    start_server: Any, tmp_path: Path
) -> None:
    make_client_pair(tmp_path)
    server = start_server([*ECHO, "--tls-client-ca", str(tmp_path / "client.pem")])
    assert (await failure(endpoint_of(server))).transient
    trust = Trust(client_certificate=tmp_path / "client.pem", client_key=tmp_path / "client.key")
    [endpoint] = Registry(server.registry).read(trust).endpoints
    async with connected(endpoint) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech


async def test_nobody_at_an_address_is_worth_another_try_and_named() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", bound.getsockname()[1])
        error = await failure(endpoint)
    assert (error.reason, error.transient) == ("UNAVAILABLE", True)
    assert endpoint.name in error.message


async def test_a_server_of_another_kind_is_told_apart(echo: Any) -> None:
    async with connected(endpoint_of(echo), ASR) as connection:
        with pytest.raises(CallError, match=r"does not serve amela\.asr\.v1\.AsrService: start amela-asr"):
            await connection.check_health()


async def test_a_call_past_its_deadline_names_the_server(echo: Any) -> None:
    error = await failure(endpoint_of(echo), "sleep:30", timeout=0.2)
    assert (error.reason, error.transient) == ("DEADLINE_EXCEEDED", True)
    assert echo.target in error.message


@pytest.mark.parametrize(
    ("reason", "transient"), [("AUDIO_NOT_FOUND", False), ("WORKER_LOST", True), ("QUEUE_FULL", True)]
)
async def test_a_servers_reason_arrives_whole(echo: Any, reason: str, transient: bool) -> None:
    error = await failure(endpoint_of(echo), f"fail:{reason}")
    assert (error.reason, error.transient, error.metadata) == (reason, transient, {"path": "x"})
    assert "für Ünicode" in error.message


async def test_a_request_over_the_servers_limit_is_final(start_server: Any) -> None:
    endpoint = endpoint_of(start_server([*ECHO, "--max-message-bytes", "65536"]))
    error = await failure(endpoint, "x" * 100_000)
    assert (error.reason, error.transient) == ("AUDIO_TOO_LARGE", False)


async def test_cancelling_a_call_ends_it_at_the_server(echo: Any, start_server: Any) -> None:
    endpoint = endpoint_of(start_server([*ECHO, "--concurrency", "1", "--queue", "0"]))
    async with connected(endpoint) as connection:
        call = asyncio.create_task(connection.call(request("sleep:60"), 100.0))
        await asyncio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await answered_within(10.0, lambda: connection.call(request("x"), 10.0))


async def test_a_proxy_that_leads_out_of_the_cluster_is_not_asked(
    echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with connected(endpoint_of(echo)) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech


async def test_an_ipv6_address_is_reached() -> None:
    empty = vad_pb2.DetectResponse().SerializeToString()
    async with (
        foreign_server(lambda _: empty, "[::1]") as port,
        connected(Endpoint("::1", port)) as connection,
    ):
        assert (await connection.call(request("x"), 10.0)).segments == ()


async def test_an_answer_that_cannot_be_read_is_an_error_not_a_result() -> None:
    async with foreign_server(lambda _: b"\xff\xff\xff no message") as port:
        error = await failure(Endpoint("127.0.0.1", port))
    assert (error.reason, error.transient) == ("INTERNAL", True)


async def test_an_answer_from_a_newer_server_is_read_as_far_as_it_is_known() -> None:
    newer = vad_pb2.DetectResponse(no_speech=True).SerializeToString() + b"\xfa\x7f\x02hi"
    async with foreign_server(lambda _: newer) as port, connected(Endpoint("127.0.0.1", port)) as connection:
        assert (await connection.call(request("x"), 10.0)).no_speech


async def test_a_server_that_knows_nothing_of_ours_is_told_apart() -> None:
    async with foreign_server(None) as port:
        error = await failure(Endpoint("127.0.0.1", port))
    assert (error.reason, error.transient) == ("UNIMPLEMENTED", False)


def make_client_pair(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ana")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "client.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


async def answered_within(limit: float, call: Callable[[], Any]) -> Any:
    async with asyncio.timeout(limit):
        while True:
            try:
                return await call()
            except CallError as error:
                assert error.reason == "QUEUE_FULL"
                await asyncio.sleep(0.05)


@asynccontextmanager
async def foreign_server(
    answer: Callable[[bytes], bytes] | None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve Detect with whatever bytes, or nothing at all, in this very process."""
    server = grpc.aio.server()
    if answer is not None:

        async def detect(content: bytes, context: Any) -> bytes:
            return answer(content)

        handler = grpc.method_handlers_generic_handler(
            VAD.name, {"Detect": grpc.unary_unary_rpc_method_handler(detect)}
        )
        server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_a_call_whose_connection_is_closed_fails_for_a_reason_that_may_pass(echo: Any) -> None:
    async with connected(endpoint_of(echo)) as connection:
        call = asyncio.create_task(connection.call(request("sleep:30"), 60))
        await asyncio.sleep(0.5)
        await connection.close()
        # Not as cancelled: whoever waits for it would take that for its own end.
        with pytest.raises(CallError, match="was closed before it had answered") as caught:
            await call
    assert caught.value.transient


async def test_a_call_that_is_cancelled_is_cancelled(echo: Any) -> None:
    async with connected(endpoint_of(echo)) as connection:
        call = asyncio.create_task(connection.call(request("sleep:30"), 60))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

"""The server shell, through a real server on loopback."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from amela.vad.v1 import vad_pb2, vad_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from tests.conftest import RunningServer, wait_until

ECHO = [sys.executable, str(Path(__file__).parent / "echo_server.py")]
SERVICE = "amela.vad.v1.VadService"


@pytest.fixture(scope="module")
def echo(start_module_server: Any) -> Any:
    return start_module_server([*ECHO, "--concurrency", "2", "--queue", "3"])


@pytest.fixture
def stub(echo: Any) -> Iterator[Any]:
    with echo.channel() as channel:
        yield vad_pb2_grpc.VadServiceStub(channel)


def detect(stub: Any, path: str, server: Any, **kwargs: Any) -> Any:
    request = vad_pb2.DetectRequest()
    request.audio.path = path
    return stub.Detect(request, metadata=server.metadata, **{"timeout": 20, **kwargs})


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return info


def health(server: Any, service: str = "") -> int:
    with server.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


def start_fails(*arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [*ECHO, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 2, result.stderr
    return result.stderr


def test_registration_is_private_and_says_where_the_server_is(echo: Any) -> None:
    path = echo.registry / f"{echo.registration['id']}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(echo.registry.stat().st_mode) == 0o700
    assert stat.S_IMODE((echo.registry / "token").stat().st_mode) == 0o600
    assert echo.registration["service"] == SERVICE
    assert echo.registration["pid"] == echo.process.pid
    assert echo.registration["model"]["engine"] == "echo"
    assert "BEGIN CERTIFICATE" in echo.registration["certificate"]
    assert "PRIVATE" not in path.read_text()


@pytest.mark.parametrize(("mode", "files"), [(0o750, 0o640), (0o755, 0o640), (0o705, 0o600), (0o711, 0o600)])
def test_files_in_a_registry_are_its_groups_if_the_folder_is_and_never_the_worlds(
    mode: int, files: int, start_server: Any, tmp_path: Path
) -> None:
    registry = tmp_path / "shared"
    registry.mkdir()
    registry.chmod(mode)
    start_server(ECHO, registry)
    assert {stat.S_IMODE(path.stat().st_mode) for path in registry.iterdir()} == {files}


def test_a_token_that_others_can_read_is_closed_again(start_server: Any, tmp_path: Path) -> None:
    registry = tmp_path / "shared"
    registry.mkdir(mode=0o700)
    (registry / "token").write_text("known\n")
    (registry / "token").chmod(0o644)
    start_server(ECHO, registry)
    assert stat.S_IMODE((registry / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b" \n", "töken".encode()])
def test_a_token_that_is_none_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o700)
    (registry / "token").write_bytes(content)
    assert "token holds no token; remove it" in start_fails("--registry", str(registry))


def test_what_started_a_server_can_label_it(start_server: Any) -> None:
    assert start_server(ECHO, AMELA_LAUNCH="asr-3f9a2c/17").registration["launch"] == "asr-3f9a2c/17"


def test_health_is_open_and_serving(echo: Any) -> None:
    assert health(echo) == health(echo, SERVICE) == health_pb2.HealthCheckResponse.SERVING


def test_call_with_token_is_answered(echo: Any, stub: Any) -> None:
    assert detect(stub, "x", echo).no_speech


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer ")],
        [("authorization", "")],
        [("authorization", "Bearer é")],
        [("authorization", "Bearer wrong"), ("authorization", "Bearer TOKEN")],
    ],
)
def test_call_without_the_token_is_refused(echo: Any, stub: Any, metadata: list[tuple[str, str]]) -> None:
    sent = [
        (key, value.replace("TOKEN", echo.token).encode("latin-1").decode("latin-1"))
        for key, value in metadata
        if value.isascii()
    ]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(vad_pb2.DetectRequest(), metadata=sent, timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert error_info(caught.value).reason == "BAD_TOKEN"


def test_streams_and_reflection_need_the_token_too(echo: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.DetectStream(iter([vad_pb2.DetectStreamRequest()]), timeout=5))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with echo.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_wrong_certificate_is_not_trusted(echo: Any, start_server: Any, tmp_path: Path) -> None:
    other = start_server(ECHO, registry=tmp_path / "other")
    foreign = other.registration["certificate"]
    with echo.channel(certificate=foreign) as channel, pytest.raises(grpc.RpcError) as caught:
        detect(vad_pb2_grpc.VadServiceStub(channel), "x", echo, timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_plaintext_call_is_not_answered(echo: Any) -> None:
    with grpc.insecure_channel(echo.target) as channel, pytest.raises(grpc.RpcError) as caught:
        detect(vad_pb2_grpc.VadServiceStub(channel), "x", echo, timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_failure_carries_its_reason_message_and_metadata(echo: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        detect(stub, "fail:AUDIO_NOT_FOUND", echo)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "asked to fail with AUDIO_NOT_FOUND für Ünicode"
    info = error_info(caught.value)
    assert (info.reason, info.domain, dict(info.metadata)) == ("AUDIO_NOT_FOUND", "amela", {"path": "x"})


def test_fault_in_the_code_is_internal_and_the_server_lives_on(echo: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        detect(stub, "crash", echo)
    assert error_info(caught.value).reason == "INTERNAL"
    assert "a fault" not in caught.value.details()
    assert '"exc_info": "Traceback' in echo.log.read_text()
    assert detect(stub, "x", echo).no_speech


def test_stream_keeps_what_it_sent_before_it_failed(echo: Any, stub: Any) -> None:
    answers = stub.DetectStream(iter([vad_pb2.DetectStreamRequest()]), metadata=echo.metadata, timeout=5)
    assert next(answers) == vad_pb2.DetectStreamResponse()
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert error_info(caught.value).reason == "AUDIO_TOO_SHORT"


def test_full_queue_refuses_at_once_with_a_delay(echo: Any, stub: Any) -> None:
    request = vad_pb2.DetectRequest()
    request.audio.path = "sleep:1"
    calls = [stub.Detect.future(request, metadata=echo.metadata, timeout=20) for _ in range(8)]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 5  # 2 at work, 3 waiting
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3
    refused = next(call for call in calls if call.code() != grpc.StatusCode.OK)
    status = rpc_status.from_call(refused)
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert detect(stub, "x", echo).no_speech


def test_expired_work_in_the_queue_is_not_done(echo: Any, stub: Any) -> None:
    request = vad_pb2.DetectRequest()
    request.audio.path = "sleep:1.5"
    busy = [stub.Detect.future(request, metadata=echo.metadata, timeout=20) for _ in range(2)]
    time.sleep(0.3)
    with pytest.raises(grpc.RpcError) as caught:
        detect(stub, "fail:INTERNAL", echo, timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert [call.code() for call in busy] == [grpc.StatusCode.OK] * 2
    # Its place in the queue is free again: three may wait, and none is refused.
    request.audio.path = "sleep:0.1"
    calls = [stub.Detect.future(request, metadata=echo.metadata, timeout=20) for _ in range(5)]
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_message_over_the_limit_is_refused(start_server: Any) -> None:
    server = start_server([*ECHO, "--max-message-bytes", "65536"])
    with server.channel() as channel:
        stub = vad_pb2_grpc.VadServiceStub(channel)
        request = vad_pb2.DetectRequest()
        request.audio.content = bytes(100_000)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Detect(request, metadata=server.metadata, timeout=5)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detect(stub, "x", server).no_speech


def test_reflection_describes_the_service(echo: Any) -> None:
    class WithToken(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
            return continuation(details._replace(metadata=echo.metadata), requests)

    with echo.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithToken()))
        assert SERVICE in database.get_services()


def test_metrics_count_calls_by_method_and_code(echo: Any, stub: Any) -> None:
    detect(stub, "x", echo)
    port = echo.registration["metricsPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    assert 'amela_requests_total{code="OK",method="Detect"}' in text
    assert "amela_queue_depth" in text and "amela_requests_in_flight" in text


def test_logs_are_json_with_the_callers_request_id(echo: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError):
        stub.Detect(
            vad_pb2.DetectRequest(audio={"path": "fail:AUDIO_EMPTY"}),
            metadata=[*echo.metadata, ("x-request-id", "request-17")],
            timeout=5,
        )
    lines = [json.loads(line) for line in echo.log.read_text().splitlines()]
    assert any(line.get("request_id") == "request-17" and line["reason"] == "AUDIO_EMPTY" for line in lines)


def test_sigterm_drains_what_is_in_flight_and_refuses_what_is_new(start_server: Any) -> None:
    server = start_server(ECHO)
    entry = server.registry / f"{server.registration['id']}.json"
    with server.channel() as channel:
        stub = vad_pb2_grpc.VadServiceStub(channel)
        detect(stub, "x", server)
        request = vad_pb2.DetectRequest(audio={"path": "sleep:1.5"})
        call = stub.Detect.future(request, metadata=server.metadata, timeout=20)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert not entry.exists()
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            detect(stub, "x", server)
        assert error_info(caught.value).reason == "DRAINING"
        assert call.result().no_speech
    assert server.process.wait(10) == 0
    assert server.log.read_text().splitlines()[-1] == "closed"


def test_a_later_signal_ends_at_once(start_server: Any) -> None:
    server = start_server(ECHO)
    with server.channel() as channel:
        request = vad_pb2.DetectRequest(audio={"path": "sleep:60"})
        call = vad_pb2_grpc.VadServiceStub(channel).Detect.future(request, metadata=server.metadata)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(2.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 128 + signal.SIGTERM
        assert call.code() == grpc.StatusCode.UNAVAILABLE


def test_signals_within_a_moment_are_one_request_to_drain(start_server: Any) -> None:
    server = start_server(ECHO)
    with server.channel() as channel:
        request = vad_pb2.DetectRequest(audio={"path": "sleep:1.5"})
        call = vad_pb2_grpc.VadServiceStub(channel).Detect.future(request, metadata=server.metadata)
        time.sleep(0.3)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            server.process.send_signal(number)
            time.sleep(0.2)
        assert call.result().no_speech
    assert server.process.wait(10) == 0


def test_a_signal_that_comes_again_while_the_process_ends_does_not_kill_it(start_server: Any) -> None:
    server = start_server(ECHO)
    first = time.monotonic()
    while server.process.poll() is None and time.monotonic() < first + 1.5:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert server.process.wait(10) == 0


def test_a_signal_to_a_server_that_drains_by_itself_ends_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    process = subprocess.Popen(
        [*ECHO, "--registry", str(registry), "--until-stdin-closes", "--host", "127.0.0.1"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(registry.glob("*.json")))
    [entry] = registry.glob("*.json")
    server = RunningServer(process, registry, json.loads(entry.read_text()), Path())
    with server.channel() as channel:
        request = vad_pb2.DetectRequest(audio={"path": "sleep:1.5"})
        call = vad_pb2_grpc.VadServiceStub(channel).Detect.future(request, metadata=server.metadata)
        time.sleep(0.3)
        assert process.stdin is not None
        process.stdin.close()
        wait_until(lambda: not entry.exists())
        process.send_signal(signal.SIGTERM)
        assert call.result().no_speech
    assert process.wait(10) == 0


@pytest.mark.parametrize("where", [[], ["--loading-on-thread"]])
def test_sigterm_while_loading_ends_cleanly_and_registers_nothing(where: list[str], tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    process = subprocess.Popen(
        [*ECHO, "--registry", registry, "--loading-seconds", "60", "--host", "127.0.0.1", *where],
        stderr=subprocess.PIPE,
    )
    wait_until((tmp_path / "registry" / "token").exists)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert not list((tmp_path / "registry").glob("*.json"))


def test_lost_engine_drains_and_exits_non_zero(start_server: Any) -> None:
    server = start_server(ECHO)
    with server.channel() as channel:
        detect(vad_pb2_grpc.VadServiceStub(channel), "lose", server)
        assert server.process.wait(10) == 1
    assert not list(server.registry.glob("*.json"))


def test_server_ends_with_its_standard_input(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    process = subprocess.Popen(
        [*ECHO, "--registry", str(registry), "--until-stdin-closes", "--host", "127.0.0.1"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(registry.glob("*.json")))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    assert not list(registry.glob("*.json"))


def test_standard_input_that_is_no_pipe_and_at_its_end_ends_the_server(tmp_path: Path) -> None:
    command = [*ECHO, "--until-stdin-closes", "--registry", str(tmp_path / "r"), "--host", "127.0.0.1"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=30, check=True)
    assert b"standard input closed" in result.stderr
    assert b"Traceback" not in result.stderr


def test_allocation_about_to_end_drains(start_server: Any) -> None:
    end = str(int(time.time()) + 5)
    server = start_server(
        [*ECHO, "--drain-seconds", "2"], SLURM_JOB_ID="17", SLURM_JOB_END_TIME=end, SLURM_ARRAY_TASK_ID="3"
    )
    assert server.registration["slurm"]["jobId"] == "17"
    assert server.registration["slurm"]["arrayTaskId"] == 3
    drains = datetime.fromisoformat(server.registration["drains"])
    assert drains.timestamp() == int(end) - 2
    assert server.process.wait(15) == 0


def test_heartbeat_is_renewed_and_survives_a_vanished_registry(start_server: Any, tmp_path: Path) -> None:
    server = start_server([*ECHO, "--heartbeat-seconds", "0.2"])
    path = server.registry / f"{server.registration['id']}.json"
    time.sleep(0.6)
    assert json.loads(path.read_text())["heartbeat"] > server.registration["heartbeat"]
    moved = tmp_path / "moved"
    server.registry.rename(moved)
    time.sleep(0.6)
    moved.rename(server.registry)
    before = json.loads(path.read_text())["heartbeat"]
    time.sleep(0.6)
    assert json.loads(path.read_text())["heartbeat"] > before


def test_servers_that_start_at_once_share_one_token(tmp_path: Path) -> None:
    from amela_common.server.registry_folder import RegistryFolder

    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(RegistryFolder(tmp_path / "registry").prepare()))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 16 and len(set(tokens)) == 1
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["token"]


def test_option_comes_from_flag_then_variable_then_file(start_server: Any, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('concurrency = 5\nqueue = 7\nheartbeat_seconds = 1.5\nlog_level = "DEBUG"\n')
    server = start_server([*ECHO, "--config", str(config), "--queue", "9"], AMELA_CONCURRENCY="6")
    capacity = server.registration["capacity"]
    assert (capacity["concurrency"], capacity["queue"]) == (6, 9)


def test_several_audio_roots_come_from_flags_or_one_variable(tmp_path: Path) -> None:
    from amela_common.server.settings import ServerSettings, load_settings

    roots = [tmp_path / "a b, [c]", tmp_path / "d"]
    for root in roots:
        root.mkdir()
    flags = [word for root in roots for word in ("--audio-root", str(root))]
    assert load_settings(ServerSettings, "", flags).audio_root == roots
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMELA_AUDIO_ROOT", os.pathsep.join(map(str, roots)))
        assert load_settings(ServerSettings, "", []).audio_root == roots


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broken"], "--broken was given"),
        (["--port", "99999"], "--port"),
        (["--queue", "many"], "--queue"),
        (["--audio-root", "/no/such/folder"], "/no/such/folder is not a folder"),
        (["--insecure"], "loopback"),
        (["--tls-cert", "/etc/hostname"], "--tls-key"),
        (["--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname"], "--tls-cert"),
        (["--config", "/no/such.toml"], "no such file"),
        (["--no-such-option"], "no-such-option"),
        (["--log-level", "LOUD"], "--log-level"),
    ],
)
def test_wrong_set_up_ends_with_2_and_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    errors = start_fails("--registry", str(tmp_path / "registry"), *arguments)
    assert words in errors
    assert "Traceback" not in errors


def test_broken_config_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("queue = ")
    assert str(config) in start_fails("--config", str(config))


@pytest.mark.parametrize("mode", [0o770, 0o2770, 0o702, 0o777])
def test_registry_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    registry.chmod(mode)
    assert "chmod go-w" in start_fails("--registry", str(registry))


def test_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    assert str(tmp_path / "registry") in start_fails("--registry", str(tmp_path / "registry"))


def test_taken_port_is_an_error_that_names_it(echo: Any, tmp_path: Path) -> None:
    port = str(echo.registration["port"])
    errors = start_fails("--registry", str(tmp_path / "r"), "--host", "127.0.0.1", "--port", port)
    assert f"127.0.0.1:{port}" in errors


def test_help_explains_every_option() -> None:
    text = subprocess.run([*ECHO, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--registry", "--audio-root", "--until-stdin-closes", "--concurrency"):
        assert option in text
    assert "Folder that audio paths must lie under" in text
    assert "lambda" not in text and "(default: None)" not in text


def test_operators_certificate_and_client_certificates(start_server: Any, tmp_path: Path) -> None:
    from amela_common.server.security import _self_signed

    certificate, key = _self_signed("127.0.0.1")
    for name, content in (("cert.pem", certificate), ("key.pem", key)):
        (tmp_path / name).write_bytes(content)
    cert_file, key_file = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    server = start_server(
        [*ECHO, "--tls-cert", cert_file, "--tls-key", key_file, "--tls-client-ca", cert_file]
    )
    with server.channel() as channel, pytest.raises(grpc.RpcError):
        detect(vad_pb2_grpc.VadServiceStub(channel), "x", server, timeout=5)
    credentials = grpc.ssl_channel_credentials(certificate, key, certificate)
    options = [("grpc.ssl_target_name_override", server.registration["tlsName"])]
    with grpc.secure_channel(server.target, credentials, options) as channel:
        assert detect(vad_pb2_grpc.VadServiceStub(channel), "x", server).no_speech

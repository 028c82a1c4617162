"""What breaks while recordings are worked on: workers, the server, callers."""

import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import wait_until
from tests.integration.vad.conftest import RATE, Recorder, Vad, error_info


def workers_of(vad: Vad) -> list[psutil.Process]:
    return psutil.Process(vad.server.process.pid).children()


def busy_worker(vad: Vad) -> psutil.Process:
    """Wait until a worker is at work, and return it."""
    before = {worker.pid: worker.cpu_times().user for worker in workers_of(vad)}

    def at_work() -> list[psutil.Process]:
        return [one for one in workers_of(vad) if one.cpu_times().user > before.get(one.pid, 99.0) + 0.1]

    wait_until(at_work)
    return at_work()[0]


def metrics(vad: Vad) -> str:
    port = vad.server.registration["metricsPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return str(page.read().decode())


@pytest.fixture
def lone(start_vad: Callable[..., Vad]) -> Vad:
    """Start a server with one worker and no queue."""
    return start_vad("--workers", "1", "--queue", "0")


def test_a_killed_worker_fails_only_its_own_request_and_is_replaced(
    start_vad: Callable[..., Vad], hours_of_silence: Path, examples: Path
) -> None:
    vad = start_vad("--workers", "2")
    sentence = examples / "sense-and-sensibility-0880.flac"
    expected = vad.call(sentence)
    doomed = vad.start(hours_of_silence)
    victim = busy_worker(vad)
    others = [vad.start(sentence) for _ in range(20)]
    victim.kill()
    with pytest.raises(grpc.RpcError, match="SIGKILL") as caught:
        doomed.result()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert error_info(caught.value).reason == "WORKER_LOST"
    assert [other.result() for other in others] == [expected] * 20
    wait_until(lambda: len(workers_of(vad)) == 2)
    assert [vad.call(sentence) for _ in range(4)] == [expected] * 4
    assert "amela_worker_restarts_total 1.0" in metrics(vad)
    with vad.server.channel() as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_a_killed_server_leaves_no_workers_behind(lone: Vad, hours_of_silence: Path) -> None:
    call = lone.start(hours_of_silence)
    worker = busy_worker(lone)
    lone.server.process.kill()
    lone.server.process.wait()
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(grpc.RpcError):
        call.result()


def test_a_cancelled_call_frees_its_worker(lone: Vad, hours_of_silence: Path, examples: Path) -> None:
    call = lone.start(hours_of_silence)
    worker = busy_worker(lone)
    call.cancel()
    wait_until(lambda: answered(lone, examples / "sense-and-sensibility-0880.flac"), timeout=10)
    assert workers_of(lone) == [worker]


def test_a_call_past_its_deadline_frees_its_worker(lone: Vad, hours_of_silence: Path, examples: Path) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        lone.call(hours_of_silence, timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: answered(lone, examples / "sense-and-sensibility-0880.flac"), timeout=10)


def answered(vad: Vad, path: Path) -> bool:
    try:
        return bool(vad.call(path).segments)
    except grpc.RpcError as error:
        assert error_info(error).reason == "QUEUE_FULL"
        return False


def test_a_call_too_many_is_refused_at_once_with_a_delay(
    lone: Vad, hours_of_silence: Path, examples: Path
) -> None:
    long = lone.start(hours_of_silence)
    busy_worker(lone)
    with pytest.raises(grpc.RpcError) as caught:
        lone.call(examples / "sense-and-sensibility-0880.flac")
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(caught.value).reason == "QUEUE_FULL"
    long.cancel()


def test_sigterm_lets_a_recording_in_work_finish(lone: Vad, record: Recorder) -> None:
    call = lone.start(record("minutes.flac", np.zeros(300 * RATE, np.int16)))
    worker = busy_worker(lone)
    lone.server.process.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    assert call.result().no_speech
    assert lone.server.process.wait(30) == 0


def test_audio_seconds_are_counted(start_vad: Callable[..., Vad], record: Recorder, speech: Any) -> None:
    vad = start_vad("--workers", "1")
    vad.call(record("speech.wav", speech))
    duration = len(speech) / 16000
    assert f'amela_audio_seconds_total{{method="Detect"}} {duration:g}' in metrics(vad)

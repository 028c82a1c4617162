"""What must not bring an ASR server down: dead workers, callers that go away, wrong settings."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from .conftest import Recording, Sentence, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(start_module_server: Any, folder: Path) -> Any:
    return start_module_server(["amela-asr", "--workers", "1", "--audio-root", str(folder)])


@pytest.fixture(scope="module")
def stub(server: Any) -> Iterator[asr_pb2_grpc.AsrServiceStub]:
    with server.channel() as channel:
        yield asr_pb2_grpc.AsrServiceStub(channel)


@pytest.fixture(scope="module")
def short(folder: Path, sentences: list[Sentence]) -> Recording:
    return record(folder / "short.wav", sentences[1:2], pause=0.5)


@pytest.fixture(scope="module")
def long(folder: Path, sentences: list[Sentence]) -> Recording:
    return record(folder / "long.wav", sentences[1:2] * 24, pause=2.5)


def call(stub: Any, server: Any, recording: Recording, timeout: float = 120) -> Any:
    request = asr_pb2.TranscribeRequest()
    request.audio.path = str(recording.path)
    return stub.Transcribe.future(request, metadata=server.metadata, timeout=timeout)


def recognizer_of(server: Any) -> psutil.Process:
    [worker] = [
        child
        for child in psutil.Process(server.process.pid).children()
        if child.cmdline()[-1] == "pocketsphinx"
    ]
    return worker


def wait_until_it_works(process: psutil.Process) -> None:
    before = process.cpu_times().user
    deadline = time.monotonic() + 60
    while process.cpu_times().user < before + 0.1:
        assert time.monotonic() < deadline, "the worker does nothing"
        time.sleep(0.01)


def reason_of(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return str(info.reason)


def test_a_worker_that_dies_fails_its_call_for_now_and_is_replaced(
    stub: Any, server: Any, short: Recording
) -> None:
    worker = recognizer_of(server)
    response = call(stub, server, short)
    wait_until_it_works(worker)
    worker.kill()

    with pytest.raises(grpc.RpcError) as failed:
        response.result()
    assert (failed.value.code(), reason_of(failed.value)) == (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")
    assert call(stub, server, short).result().text


def test_a_worker_that_dies_costs_a_long_recording_nothing(
    stub: Any, server: Any, folder: Path, sentences: list[Sentence]
) -> None:
    recording = record(folder / "three.wav", sentences[1:2] * 3, pause=2.0)
    worker = recognizer_of(server)
    response = call(stub, server, recording)
    wait_until_it_works(worker)
    worker.kill()
    result = response.result()

    assert not result.failures
    assert len(result.segments) == 3 and all(segment.text for segment in result.segments)


def test_a_caller_that_goes_away_frees_the_engine(
    stub: Any, server: Any, long: Recording, short: Recording
) -> None:
    worker = recognizer_of(server)
    abandoned = call(stub, server, long)
    wait_until_it_works(worker)
    abandoned.cancel()
    response = call(stub, server, short)

    assert response.result().text
    before = worker.cpu_times().user
    time.sleep(0.5)
    assert worker.cpu_times().user < before + 0.1


def test_a_deadline_ends_the_work_on_a_recording(
    stub: Any, server: Any, long: Recording, short: Recording
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        call(stub, server, long, timeout=1).result()

    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert call(stub, server, short).result().text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--engine", "whisper"], "--engine"),
        (
            ["--engine", "pocketsphinx", "--model", "fr-fr"],
            "--model fr-fr: the pocketsphinx engine has en-us only",
        ),
        (["--max-piece-seconds", "90"], "takes pieces of at most 60 s"),
        (["--workers", "0"], "--workers"),
        (["--front-workers", "1"], "--front-workers"),
        (["--max-piece-seconds", "nan"], "--max-piece-seconds"),
    ],
)
def test_settings_that_cannot_work_end_the_start_with_one_line(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    command = [
        sys.executable,
        "-m",
        "amela_asr",
        "--registry",
        str(tmp_path / "registry"),
        "--host",
        "127.0.0.1",
        *arguments,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

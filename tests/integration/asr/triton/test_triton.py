"""The ASR server in front of a real Triton that runs the same engine code."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import soundfile
import tritonclient.grpc as tritonclient
from amela_asr.engine import Options, Recognition
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.recognizer import Utterance
from amela_asr.engines.triton import MODEL, TritonEngine
from amela_common.audio import Clip
from amela_common.errors import ConfigError, RequestError
from amela_common.server import Metrics, Runtime
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ....conftest import program, wait_until
from ..calls import Caller, outcome
from .certificates import make_authority
from .conftest import Command, Triton, launch_triton

RATE = 16_000
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def caller(start_module_server: Any, triton: Triton, models: Path, folder: Path) -> Caller:
    roots = ["--audio-root", str(models), "--audio-root", str(folder)]
    command = ["amela-asr", "--triton-url", triton.url, "--queue", "200", *roots]
    return Caller(start_module_server(command))


@pytest.fixture
def control(triton: Triton) -> Iterator[Any]:
    with tritonclient.InferenceServerClient(triton.url) as client:
        yield client


def health(caller: Caller) -> int:
    stub = health_pb2_grpc.HealthStub(caller.server.channel())
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status)


def in_process(models: Path, commands: list[Command]) -> tuple[str, list[Any]]:
    recognizer = load_recognizer(str(models / "tdt.nemo"), offline=True, device="cpu")
    options = Options(words=True, confidence=True)
    batch = [Utterance(Clip(command.samples, RATE), options) for command in commands]
    return recognizer.fingerprint, recognizer.recognize(batch)


async def recognize_all(triton: Triton, clips: list[Clip], options: Options) -> list[Any]:
    engine = TritonEngine(triton.url, None, None, Runtime(Metrics()))
    try:
        await engine.load()
        return await asyncio.gather(
            *(engine.recognize(clip, options, None) for clip in clips), return_exceptions=True
        )
    finally:
        await engine.close()


def test_triton_runs_what_the_server_says(caller: Caller, triton: Triton, models: Path) -> None:
    info = caller.info()

    assert (info.server.model.engine, info.server.model.name) == ("triton", "tdt.nemo")
    assert triton.url in info.server.model.device
    assert info.capabilities.word_times and info.capabilities.word_confidence


async def test_texts_words_and_fingerprint_are_those_of_the_engine_in_process_and_batches_are_shared(
    triton: Triton, models: Path, commands: list[Command]
) -> None:
    fingerprint, expected = in_process(models, commands)
    clips = [Clip(command.samples, RATE) for command in commands]
    before = triton.metric("nv_inference_count"), triton.metric("nv_inference_exec_count")
    engine = TritonEngine(triton.url, None, None, Runtime(Metrics()))
    try:
        await engine.load()
        options = Options(words=True, confidence=True)
        got = await asyncio.gather(*(engine.recognize(clip, options, None) for clip in clips * 3))
    finally:
        await engine.close()
    count, executed = triton.metric("nv_inference_count"), triton.metric("nv_inference_exec_count")

    assert engine.fingerprint == fingerprint
    assert [each.text for each in got] == [each.text for each in expected] * 3
    for one, other in zip(got, expected * 3, strict=True):
        assert [word[:3] for word in one.words or ()] == [word[:3] for word in other.words or ()]
    assert count - before[0] >= len(got)
    assert (count - before[0]) / (executed - before[1]) > 2


async def test_each_item_of_a_batch_fails_alone(triton: Triton, commands: list[Command]) -> None:
    not_finite = commands[0].samples.copy()
    not_finite[5] = np.nan
    good = Clip(commands[9].samples, RATE)
    bad = [Clip(not_finite, RATE), Clip(commands[0].samples[:800], RATE)]
    silent = Clip(np.zeros(RATE, np.float32), RATE)
    got = await recognize_all(triton, [good, *bad, good, silent], Options())

    texts = [each.text if isinstance(each, Recognition) else each.reason for each in got]
    assert texts == [commands[9].text, "AUDIO_NOT_FINITE", "AUDIO_TOO_SHORT", commands[9].text, ""]


async def test_an_option_that_the_model_does_not_have_is_refused_by_triton_too(
    triton: Triton, commands: list[Command]
) -> None:
    (refused,) = await recognize_all(triton, [Clip(commands[0].samples, RATE)], Options(prompt="Write:"))

    assert isinstance(refused, RequestError)
    assert refused.reason == "UNSUPPORTED_OPTION"


def test_recordings_are_transcribed_through_both_servers(caller: Caller, commands: list[Command]) -> None:
    calls = [caller.start(command.path) for command in commands]

    assert sum(outcome(call) == command.text for call, command in zip(calls, commands, strict=True)) >= 22


def test_a_call_whose_deadline_passes_leaves_the_rest_to_others(
    caller: Caller, commands: list[Command], folder: Path
) -> None:
    path = folder / "long.wav"
    soundfile.write(path, np.concatenate([command.samples for command in commands * 3]), RATE)
    call = caller.start(path, timeout=0.05)
    with pytest.raises(grpc.RpcError) as expired:
        call.result()

    assert expired.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caller.transcribe(commands[9].path).text == commands[9].text


async def test_a_full_queue_of_tritons_is_our_full_queue(
    triton: Triton, control: Any, caller: Caller, commands: list[Command]
) -> None:
    config = control.get_model_config(MODEL, as_json=True)["config"]
    narrow = json.loads(json.dumps(config))
    narrow["max_batch_size"] = 1
    # Which Triton has filled in, for the size that it had.
    narrow["dynamic_batching"].pop("preferred_batch_size", None)
    narrow["dynamic_batching"]["default_queue_policy"]["max_queue_size"] = 1
    control.load_model(MODEL, config=json.dumps(narrow))
    try:
        got = await recognize_all(triton, [Clip(commands[9].samples, RATE)] * 40, Options())
    finally:
        control.load_model(MODEL, config=json.dumps(config))
    refused = [each for each in got if isinstance(each, RequestError)]

    assert {error.reason for error in refused} == {"QUEUE_FULL"}
    assert all(error.retry_after for error in refused)
    assert {each.text for each in got if isinstance(each, Recognition)} == {commands[9].text}


def test_a_dead_model_process_takes_the_server_out_of_service_until_it_is_loaded_again(
    triton: Triton, control: Any, caller: Caller, commands: list[Command]
) -> None:
    wait_until(lambda: health(caller) == SERVING, timeout=60)
    for child in psutil.Process(triton.process.pid).children(recursive=True):
        if "triton_python_backend_stub" in child.name() or any("stub" in part for part in child.cmdline()):
            child.kill()
    assert control.is_server_ready()
    wait_until(lambda: health(caller) == NOT_SERVING, timeout=60)

    assert outcome(caller.start(commands[9].path)) == "[ENGINE_LOST]"
    assert "does not answer" in caller.server.log.read_text()

    control.unload_model(MODEL)
    time.sleep(1)
    control.load_model(MODEL)
    wait_until(lambda: health(caller) == SERVING, timeout=60)
    assert caller.transcribe(commands[9].path).text == commands[9].text


@pytest.mark.parametrize("what", ["model", "server"])
def test_what_is_not_there_is_one_line_and_exit_code_2(triton: Triton, tmp_path: Path, what: str) -> None:
    flags = ["--triton-url", triton.url, "--model", "nothing"]
    if what == "server":
        flags = ["--triton-url", "127.0.0.1:9"]
    ended = subprocess.run(
        [program("amela-asr"), *flags, "--registry", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert ("has no model nothing" if what == "model" else "does not answer") in last


async def test_a_triton_without_tls_is_refused_with_the_cure_when_it_is_called_by_tls(
    triton: Triton, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path / "authority.pem").path
    engine = TritonEngine(triton.url, None, authority, Runtime(Metrics()))
    try:
        with pytest.raises(ConfigError, match="speaks no TLS: start it with TLS, or leave --triton-ca out"):
            await engine.load()
    finally:
        await engine.close()


def test_triton_does_not_start_with_a_model_that_is_not_there(tmp_path: Path) -> None:
    triton = launch_triton(tmp_path / "none.nemo", tmp_path / "log")

    assert triton.process.wait(120) != 0
    assert "no such file or folder" in triton.log.read_text()

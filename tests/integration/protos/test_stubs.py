"""The generated stubs, on both protobuf runtimes that they promise to run on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amela.common.v1.error_pb2 import ErrorReason, transient

SCRIPT = """
import google.protobuf
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from amela.common.v1 import audio_pb2, error_pb2, registration_pb2, server_pb2
from amela.sts.v1 import sts_pb2, sts_pb2_grpc
from amela.vad.v1 import vad_pb2, vad_pb2_grpc
request = vad_pb2.DetectRequest(audio=audio_pb2.Audio(path="/a.wav", channel=0))
assert vad_pb2.DetectRequest.FromString(request.SerializeToString()) == request
assert request.audio.HasField("channel") and not request.audio.HasField("start")
print(google.protobuf.__version__)
"""


@pytest.mark.parametrize("major", ["6", "7"])
def test_stubs_run_on_protobuf(major: str, tmp_path: Path) -> None:
    install = ["install", "--quiet", "--no-deps", "--target", str(tmp_path), f"protobuf=={major}.*"]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{major}.")


def test_contract_says_which_failures_another_try_can_mend() -> None:
    mendable = {
        value.name.removeprefix("ERROR_REASON_")
        for value in ErrorReason.DESCRIPTOR.values
        if value.GetOptions().Extensions[transient]
    }
    assert {"QUEUE_FULL", "OUT_OF_MEMORY", "WORKER_LOST", "DRAINING"} <= mendable
    assert not {reason for reason in mendable if reason.startswith("AUDIO_")}

"""A VAD server, and recordings made of the example sentences."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from amela.vad.v1 import vad_pb2, vad_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

RATE = 16_000

Recorder = Callable[..., Path]


@dataclass
class Vad:
    """A running server, and calls to it as a user of the contract makes them."""

    server: Any
    stub: Any

    def call(self, path: Path | None, *, timeout: float = 60, **fields: Any) -> Any:
        return self.start(path, timeout=timeout, **fields).result()

    def start(self, path: Path | None, *, timeout: float = 60, **fields: Any) -> Any:
        request = vad_pb2.DetectRequest(**fields)
        if path is not None:
            request.audio.path = str(path)
        return self.stub.Detect.future(request, metadata=self.server.metadata, timeout=timeout)

    def stream(self, requests: Iterator[vad_pb2.DetectStreamRequest], timeout: float = 60) -> Any:
        return self.stub.DetectStream(requests, metadata=self.server.metadata, timeout=timeout)


@pytest.fixture(scope="module")
def audio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="module")
def start_vad(start_module_server: Any, audio_folder: Path, examples: Path) -> Iterator[Callable[..., Vad]]:
    """Start ``amela-vad`` for a module, with access to the examples and the module's recordings."""
    channels: list[grpc.Channel] = []

    def start(*flags: str) -> Vad:
        roots = ["--audio-root", str(audio_folder), "--audio-root", str(examples)]
        server = start_module_server(["amela-vad", *roots, *flags])
        channels.append(server.channel())
        return Vad(server, vad_pb2_grpc.VadServiceStub(channels[-1]))

    yield start
    for channel in channels:
        channel.close()


@pytest.fixture(scope="module")
def vad(start_vad: Callable[..., Vad]) -> Vad:
    return start_vad("--workers", "2")


@pytest.fixture(scope="session")
def speech(examples: Path) -> NDArray[np.int16]:
    """Give the five sentences, one after the other: 25 s."""
    return np.concatenate(
        [soundfile.read(path, dtype="int16")[0] for path in sorted(examples.glob("*.flac"))]
    )


@pytest.fixture(scope="module")
def record(audio_folder: Path) -> Recorder:
    """Write samples to a file for the server to read."""

    def write(name: str, samples: NDArray[Any], rate: int = RATE) -> Path:
        path = audio_folder / name
        if not path.exists():
            soundfile.write(path, samples, rate)
        return path

    return write


@pytest.fixture(scope="module")
def hours_of_silence(record: Recorder) -> Path:
    """Give what keeps a worker busy for half a minute: two hours in a small file."""
    return record("hours.flac", np.zeros(2 * 3600 * RATE, np.int16))


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def times(response: vad_pb2.DetectResponse) -> list[tuple[float, float]]:
    return [(seconds(run.start), seconds(run.end)) for run in response.segments]


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return info

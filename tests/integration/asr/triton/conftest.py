"""A real Triton from its PyPI wheel, with this package's model repository."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ....requirement import absent, skipping
from ..nemo.conftest import Command, commands, models

__all__ = ["Command", "commands", "models"]

ROOT = Path(__file__).parents[4]
START = ROOT / "services/asr/triton/start"
WHEEL = Path(os.environ.get("AMELA_TRITON", ROOT / ".venv-triton"))


def _absent() -> str | None:
    reason = absent("triton", "nemo", "tritonclient")
    if reason is None and not WHEEL.is_dir():
        reason = f"no Triton in {WHEEL}: pip install --no-deps --target {WHEEL} nvidia-pytriton==0.7.0"
        if "triton" in os.environ.get("AMELA_REQUIRE", "").split(","):
            raise pytest.UsageError(f"AMELA_REQUIRE lists triton, but there is {reason}")
    return reason


pytest_pycollect_makemodule = skipping(_absent())


@dataclass
class Triton:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    grpc_port: int
    metrics_port: int
    log: Path

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def metric(self, name: str) -> float:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def launch_triton(model: Path | str, log: Path, *further: str) -> Triton:
    """Start Triton as operators do, without waiting for it."""
    grpc_port, http_port, metrics_port = _free_ports(3)
    flags = [f"--grpc-port={grpc_port}", f"--http-port={http_port}", f"--metrics-port={metrics_port}"]
    flags += [f"--{name}-address=127.0.0.1" for name in ("grpc", "http", "metrics")]
    flags += ["--exit-timeout-secs=1", *further]
    environment = {"AMELA_MODEL": str(model), "AMELA_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [START, "wheel", WHEEL, sys.executable, *flags],
            stdout=sink,
            stderr=sink,
            env={**os.environ, **environment},
        )
    return Triton(process, grpc_port, metrics_port, log)


@contextmanager
def running_triton(model: Path, log: Path, *further: str) -> Iterator[Triton]:
    """Start Triton, wait until it is ready, and end it afterwards."""
    triton = launch_triton(model, log, *further)
    try:
        deadline = time.monotonic() + 120
        while b"Started GRPCInferenceService" not in triton.log.read_bytes():
            if triton.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Triton did not start:\n{triton.log.read_text()[-4000:]}")
            time.sleep(0.2)
        yield triton
    finally:
        triton.process.terminate()
        triton.process.wait(60)


@pytest.fixture(scope="module")
def triton(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(models / "tdt.nemo", tmp_path_factory.mktemp("triton") / "log") as triton:
        yield triton


def _free_ports(count: int) -> list[int]:
    # Triton takes numbers only, not sockets.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports

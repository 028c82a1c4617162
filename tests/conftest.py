"""Real servers for tests: started as users start them, found through a registry, ended for sure."""

import codecs
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import pytest

# No test depends on how busy the machine is.
hypothesis.settings.register_profile("amela", deadline=None)
hypothesis.settings.load_profile("amela")

# Nor on how it was started: nohup, or a shell in the background, has these ignored, also by child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

EXAMPLES = Path(__file__).parent.parent / "examples"
START_TIMEOUT_SECONDS = 60
NOBODY = 65534


@dataclass
class RunningServer:
    """A server process that has registered itself."""

    process: "subprocess.Popen[bytes]"
    registry: Path
    registration: dict[str, Any]
    log: Path

    @property
    def token(self) -> str:
        return (self.registry / "token").read_text().strip()

    @property
    def target(self) -> str:
        return f"{self.registration['host']}:{self.registration['port']}"

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")]

    def channel(self, certificate: str | None = None) -> grpc.Channel:
        options = [
            ("grpc.ssl_target_name_override", self.registration["tlsName"]),
            ("grpc.max_receive_message_length", -1),
        ]
        pem = certificate or self.registration["certificate"]
        return grpc.secure_channel(self.target, grpc.ssl_channel_credentials(pem.encode()), options)

    def terminate(self, timeout: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    """Wait for a condition; fail the test if it does not come true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not true after {timeout} s")
        time.sleep(0.02)


StartServer = Callable[..., RunningServer]


def launch(command: Sequence[str], registry: Path, folder: Path, **environment: str) -> RunningServer:
    """Start a server and wait for its registration; one that ends instead fails the test with its log."""
    before = set(registry.glob("*.json")) if registry.exists() else set()
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--registry", str(registry), "--host", "127.0.0.1"],
            stderr=sink,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for path in set(registry.glob("*.json")) - before:
            registration = json.loads(path.read_text())
            if registration["pid"] == process.pid:
                return RunningServer(process, registry, registration, log)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{command[0]} did not register (exit code {process.wait()}):\n{log.read_text()[-4000:]}")


def stop_all(servers: Sequence[RunningServer]) -> None:
    for server in servers:
        server.process.terminate()
    for server in servers:
        try:
            server.process.wait(10)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def program(name: str) -> str:
    """Path of one of the project's programs in the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def _starter(folder: Path) -> Iterator[StartServer]:
    servers: list[RunningServer] = []

    def start(command: Sequence[str], registry: Path | None = None, **environment: str) -> RunningServer:
        executable = program(command[0]) if "/" not in command[0] else command[0]
        server = launch([executable, *command[1:]], registry or folder / "registry", folder, **environment)
        servers.append(server)
        return server

    yield start
    stop_all(servers)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers for one test: ``start_server(["amela-vad", "--workers", "1"])``."""
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def start_module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers that the tests of one module share."""
    yield from _starter(tmp_path_factory.mktemp("servers"))


@pytest.fixture
def users_folder() -> Iterator[Path]:
    """Give a folder to an ordinary user, and run the test as one: root may read and write anything."""
    was_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        if was_root:
            # An ordinary user may not see root's Python, from which codecs are imported on first use.
            codecs.lookup("utf-8-sig")
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if was_root:
                os.seteuid(0)


@pytest.fixture(scope="session")
def examples() -> Path:
    """Folder of the five example sentences."""
    return EXAMPLES

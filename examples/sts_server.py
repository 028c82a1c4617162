"""An `amela-sts` of one's own for as long as a block lasts, and the calls to it."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from amela.sts.v1.sts_pb2_grpc import StsServiceStub

START_TIMEOUT_SECONDS = 120
_POLL_SECONDS = 0.1


class StsCalls:
    """A server's methods, its token already in every call."""

    def __init__(self, stub: StsServiceStub, token: str) -> None:
        self.stub = stub
        self.metadata = (("authorization", f"Bearer {token}"),)


@contextlib.contextmanager
def sts_server(*options: str) -> Iterator[StsCalls]:
    """Run a server with these options until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry"
        command = [str(Path(sys.executable).with_name("amela-sts")), "--host", "127.0.0.1", *options]
        command += ["--audio-root", "/", "--registry", str(registry), "--until-stdin-closes"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
        try:
            registration = _wait(process, registry, Path(folder) / "log")
            credentials = grpc.ssl_channel_credentials(registration["certificate"].encode())
            with grpc.secure_channel(
                f"{registration['host']}:{registration['port']}",
                credentials,
                [
                    ("grpc.ssl_target_name_override", registration["tlsName"]),
                    ("grpc.max_receive_message_length", -1),
                ],
            ) as channel:
                yield StsCalls(StsServiceStub(channel), (registry / "token").read_text().strip())
        finally:
            process.terminate()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", registry: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for path in registry.glob("*.json"):
            registration: dict[str, str] = json.loads(path.read_text())
            return registration
        time.sleep(_POLL_SECONDS)
    raise SystemExit(f"amela-sts did not start:\n{log.read_text()}")

"""What the tests of the images share: Apptainer's calls, and servers that run from an image."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...conftest import NOBODY, RunningServer, stop_all
from ..images_built import APPTAINER, NAMES, ROOT, Images

__all__ = ["NOBODY"]
START_SECONDS = 120
EXAMPLES = ROOT / "examples"
SENTENCE = EXAMPLES / "sense-and-sensibility-0880.flac"
StartImage = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def all_images(images: Images) -> Images:
    """Have all images built while the tests of the first ones run."""
    images.begin(*NAMES)
    return images


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give a folder that an ordinary user can reach, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def apptainer(
    *arguments: str | Path, code: int = 0, timeout: float = 300, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Call Apptainer; any other exit code than `code` fails the test."""
    done = subprocess.run(
        [APPTAINER, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture
def start_image(scratch: Path) -> Iterator[StartImage]:
    """Start servers from images: ``start_image(images("vad"), "--workers", "1")``."""
    servers: list[RunningServer] = []

    def start(
        image: Path,
        *options: str | Path,
        binds: str = "",
        examples: Path = EXAMPLES,
        before: tuple[str | Path, ...] = (APPTAINER, "run"),
    ) -> RunningServer:
        registry = scratch / f"registry-{len(servers)}"
        log = scratch / f"server-{len(servers)}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [
                    *map(str, before),
                    *("--bind", f"{examples}:{examples}:ro{',' if binds else ''}{binds}", str(image)),
                    *("--registry", str(registry), "--host", "127.0.0.1", "--audio-root", str(examples)),
                    *map(str, options),
                ],
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)},
                stdin=subprocess.DEVNULL,
                stderr=sink,
            )
        server = RunningServer(process, registry, wait_for_registration(process, registry, log), log)
        servers.append(server)
        return server

    yield start
    stop_all(servers)


def wait_for_registration(process: "subprocess.Popen[bytes]", registry: Path, log: Path) -> dict[str, Any]:
    """Wait until a server has registered itself in a registry of its own."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for path in registry.glob("*.json"):
            registration: dict[str, Any] = json.loads(path.read_text())
            return registration
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no registration (exit code {process.wait()}):\n{log.read_text()[-4000:]}")

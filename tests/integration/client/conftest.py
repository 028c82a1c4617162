"""The command line as users run it, and manifests of short clips of real speech."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.conftest import EXAMPLES, RunningServer, program

Line = dict[str, Any]


@dataclass(frozen=True)
class Cli:
    """``amela-client`` in a folder of its own. Without ``--registry`` it finds no servers."""

    folder: Path

    def start(
        self, *arguments: str | Path, stderr: TextIO | int = subprocess.PIPE, **environment: str
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [program("amela-client"), *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "AMELA_REGISTRY": str(self.folder / "no-registry"), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str | Path, code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def write(self, name: str, *lines: Line | bytes) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            for line in lines:
                file.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        return path

    def read(self, name: str) -> list[Line]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def count_lines(self, name: str) -> int:
        path = self.folder / name
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    folder = tmp_path / "work"
    folder.mkdir()
    yield Cli(folder)


def clips(count: int, seconds: float = 1.0) -> list[Line]:
    """Give so many different stretches of the example sentences, each with a field of its own."""
    sentences = [json.loads(line) for line in (EXAMPLES / "data.json").read_text().splitlines()]
    lines = []
    for index in range(count):
        sentence = sentences[index % len(sentences)]
        room = sentence["duration"] - seconds
        offset = round(0.1 + (index // len(sentences)) * 0.0073 % (room - 0.1), 4)
        path = str(EXAMPLES / sentence["audio_filepath"])
        lines.append({"audio_filepath": path, "offset": offset, "duration": seconds, "id": f"clip-{index}"})
    return lines


def of_manifest(lines: list[Line], manifest: list[Line]) -> list[Line]:
    """Give the fields that the lines have from their manifest."""
    return [{name: line[name] for name in entry} for line, entry in zip(lines, manifest, strict=True)]


def calls(server: RunningServer, method: str = "Detect", code: str = "OK") -> int:
    """Count the calls that a server has ended with a status code."""
    url = f"http://127.0.0.1:{server.registration['metricsPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    start = f'amela_requests_total{{code="{code}",method="{method}"}} '
    return sum(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))

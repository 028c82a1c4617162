"""The whole of it: servers in images, as jobs of a real SLURM, working through manifests."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .images_built import APPTAINER
from .slurm_cluster import SlurmCluster

ENTRIES = 150
STRETCH = 0.8
CLIENT = str(Path(sys.executable).parent / "amela-client")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def manifest(tmp_path: Path, examples: Path) -> Path:
    """Short stretches of the example sentences."""
    sentences = [json.loads(line) for line in (examples / "data.json").read_text().splitlines()]
    path = tmp_path / "data.json"
    with path.open("w") as file:
        for number in range(ENTRIES):
            sentence = sentences[number % len(sentences)]
            entry = {
                "audio_filepath": str(examples / sentence["audio_filepath"]),
                "offset": round(number / ENTRIES * (sentence["duration"] - STRETCH), 3),
                "duration": STRETCH,
                "number": number,
            }
            file.write(json.dumps(entry) + "\n")
    return path


def registrations(registry: Path) -> dict[str, dict[str, Any]]:
    """Servers that are registered, by the id of their job."""
    found = [json.loads(path.read_text()) for path in registry.glob("*.json")]
    return {server["slurm"]["jobId"]: server for server in found}


def requests_of(server: dict[str, Any]) -> float:
    url = f"http://127.0.0.1:{server['metricsPort']}/metrics"
    lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("amela_requests_total{"))


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def settled(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def processes_of(registry: Path) -> list[str]:
    """What still runs with this registry in its environment."""
    marker = f"AMELA_REGISTRY={registry}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def up(slurm: SlurmCluster, registry: Path, examples: Path) -> Iterator[Callable[..., str]]:
    """Start servers, with Apptainer on their PATH, and take down what a test leaves of them."""

    def start(*options: str | Path) -> str:
        command = (CLIENT, "up", "--registry", registry, "--audio-root", examples, "--json", *options)
        path = f"{APPTAINER.parent}:{slurm.env['PATH']}"
        return str(json.loads(slurm.run(*command, timeout=300, PATH=path).stdout)["name"])

    yield start
    slurm.run(CLIENT, "down", "--all", "--registry", registry, code=None, timeout=120)


def test_a_manifest_passes_three_servers_in_images_whatever_happens_to_them(
    slurm: SlurmCluster,
    images: Callable[[str], Path],
    registry: Path,
    manifest: Path,
    up: Callable[..., str],
) -> None:
    name = up(
        *("asr", "--count", "3", "--gres", "gpu:1", "--cpus", "1", "--time", "30:00"),
        *("--image", images("asr-embedded"), "--", "--workers", "1", "--front-workers", "2"),
    )

    servers = registrations(registry)
    assert len(servers) == 3
    gpus = {
        (server["slurm"]["node"], variable)
        for server in servers.values()
        for variable in Path(f"/proc/{server['pid']}/environ").read_bytes().split(b"\0")
        if variable.startswith(b"CUDA_VISIBLE_DEVICES=")
    }
    assert len(gpus) == 3

    done = manifest.with_name("done.json")
    journal = done.with_name("done.json.journal")
    client = subprocess.Popen(
        [CLIENT, "transcribe", manifest, "-o", done, "--registry", registry, "--json"],
        env=slurm.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: settled(journal) >= 10 and all(requests_of(server) > 0 for server in servers.values()))
    cancelled, requeued, _ = servers
    slurm.run("scancel", cancelled)
    until(lambda: settled(journal) >= 40)
    slurm.run("scontrol", "requeue", requeued)

    output, words = client.communicate(timeout=300)
    assert client.returncode == 0, words
    summary = json.loads(output)
    assert (summary["results"], summary["quarantined"]) == (ENTRIES, {})
    lines = [json.loads(line) for line in done.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(ENTRIES))
    assert all("text" in line for line in lines)

    slurm.wait_for(requeued, "RUNNING")
    until(lambda: registrations(registry).get(requeued, {}).get("slurm", {}).get("restartCount") == 1)
    status = json.loads(slurm.run(CLIENT, "status", "--registry", registry, "--json").stdout)
    (launch,) = status["launches"]
    assert {job["job"]: job["state"] for job in launch["jobs"] if job["job"] != cancelled} == {
        job: "ready" for job in servers if job != cancelled
    }

    slurm.run(CLIENT, "down", name, "--registry", registry, timeout=120)
    assert slurm.run("squeue", "--noheader").stdout == ""
    assert [path.name for path in registry.rglob("*") if path.is_file()] == ["token"]
    assert processes_of(registry) == []
    assert os.listdir(registry / "launches") == []  # noqa: PTH208


def test_a_client_does_not_notice_that_an_allocation_ends_and_its_successor_takes_over(
    slurm: SlurmCluster, registry: Path, manifest: Path, up: Callable[..., str]
) -> None:
    up("asr", "--renew", "--time", "1", "--", "--workers", "1", "--front-workers", "2")
    (first,) = registrations(registry)

    runs = 0
    while first in registrations(registry) or not runs:
        runs += 1
        done = manifest.with_name(f"done-{runs}.json")
        # A gap of a second would end the run.
        command = (CLIENT, "transcribe", manifest, "-o", done, "--registry", registry)
        summary = json.loads(slurm.run(*command, "--wait", "1", "--json", timeout=300).stdout)
        assert (summary["results"], summary["quarantined"]) == (ENTRIES, {})

    ended = slurm.wait_for(first, "COMPLETED")
    assert ended["ExitCode"] == "0:0"
    assert any(requests_of(successor) > 0 for successor in registrations(registry).values())


def test_a_client_that_is_a_job_itself_goes_on_after_a_requeue(
    slurm: SlurmCluster, registry: Path, manifest: Path, up: Callable[..., str]
) -> None:
    up("asr", "--time", "30:00", "--", "--workers", "2", "--front-workers", "2")
    done = manifest.with_name("done.json")
    log = manifest.with_name("client.log")

    client = slurm.submit(
        f"exec {CLIENT} transcribe {manifest} -o {done} --registry {registry}",
        *("--requeue", f"--output={log}", "--open-mode=append"),
    )
    until(lambda: settled(done.with_name("done.json.journal")) >= 20)
    slurm.run("scontrol", "requeue", client)
    slurm.wait_for(client, "COMPLETED", timeout=180)

    lines = [json.loads(line) for line in done.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(ENTRIES))
    assert "settled by the run before" in log.read_text()

"""Servers that run for one client only."""

import os
import signal
import stat
from pathlib import Path

import psutil
import pytest
from amela_client.client import AmelaClient
from amela_client.local import LocalServerError, local_servers
from amela_client.services import ASR, VAD

from tests.conftest import wait_until
from tests.integration.client.conftest import Cli, clips


def servers_of(registry: Path) -> list[psutil.Process]:
    """Find the processes of local servers: their registry is on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(registry) in (process.info["cmdline"] or []):
            found += [process, *process.children(recursive=True)]
    return found


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_local_run_needs_nothing_but_the_command_and_leaves_nothing_behind(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    manifest = clips(8)
    cli.write("data.json", *manifest)
    cli.run("vad", "data.json", "-o", "vad.json", "--local", TMPDIR=str(tmp_path / "tmp"))
    assert [line["id"] for line in cli.read("vad.json")] == [line["id"] for line in manifest]
    assert cli.names() == ["data.json", "vad.json"]
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_local_servers_are_for_their_owner_only_and_end_with_the_block(examples: Path) -> None:
    async with local_servers([VAD, ASR]) as registry:
        assert stat.S_IMODE(registry.parent.stat().st_mode) == 0o700
        async with AmelaClient(registry) as client:
            found = await client.servers()
            assert {status.service for status in found if status.serving} == {VAD.name, ASR.name}
            assert all(status.endpoint.startswith("127.0.0.1:") for status in found)
            assert (await client.detect(examples / "sense-and-sensibility-0880.flac")).segments
        processes = servers_of(registry)
        assert len(processes) > 2
    assert all(map(is_gone, processes))
    assert not registry.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_local_servers_end_however_the_client_ends(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    cli.write("data.json", *clips(400, 2.0))
    folder = tmp_path / "tmp"
    folder.mkdir()
    client = cli.start("vad", "data.json", "-o", "vad.json", "--local", TMPDIR=str(folder))
    wait_until(lambda: list(folder.glob("amela-local-*/registry/*.json")))
    processes = servers_of(next(folder.glob("amela-local-*/registry")))
    assert processes
    # As a terminal does it: to the whole foreground group.
    os.killpg(client.pid, number)
    client.communicate(timeout=30)
    wait_until(lambda: all(map(is_gone, processes)))
    if number is not signal.SIGKILL:
        assert client.returncode == 128 + number
        assert list(folder.iterdir()) == []


def test_a_server_that_cannot_start_is_quoted(cli: Cli) -> None:
    cli.write("data.json", *clips(1))
    err = cli.run(
        "vad", "data.json", "-o", "vad.json", "--local", "--quiet", code=1, AMELA_WORKERS="none"
    ).stderr
    assert err.startswith("amela-client: amela-vad, started for this run, ended with exit code 2;")
    assert "--workers" in err
    assert err.count("\n") == 1
    assert cli.names() == ["data.json"]


async def test_a_server_that_is_killed_is_named(examples: Path) -> None:
    with pytest.raises(LocalServerError, match="amela-vad, started for this run, was ended by signal 9"):
        async with local_servers([VAD]) as registry, AmelaClient(registry, wait=0.5) as client:
            servers_of(registry)[0].kill()
            await client.detect(examples / "sense-and-sensibility-0880.flac")

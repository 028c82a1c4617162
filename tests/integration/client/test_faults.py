"""Runs in which servers, clients and disks fail for real."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer, program, wait_until
from tests.integration.client.conftest import Cli, Line, calls, clips, of_manifest

FAKE = [sys.executable, str(Path(__file__).parent / "fake_engine_server.py")]


@pytest.fixture
def manifest(cli: Cli) -> list[Line]:
    """Write a manifest of 200 entries that keep a worker busy for some seconds."""
    lines = clips(200, 1.5)
    cli.write("data.json", *lines)
    return lines


@pytest.fixture
def start_vad(start_server: StartServer) -> StartServer:
    return lambda *flags: start_server(["amela-vad", "--workers", "1", "--audio-root", "/", *flags])


@pytest.fixture
def start_fake(start_server: StartServer) -> StartServer:
    """Start servers with a model of one's choice, and failures on demand."""
    return lambda *flags: start_server([*FAKE, *flags])


def check_output(cli: Cli, manifest: list[Line]) -> None:
    """All lines are there, once each, in order, each with a result."""
    lines = cli.read("out.json")
    assert of_manifest(lines, manifest) == manifest
    assert all(line["segments"] is not None for line in lines)
    assert not (cli.folder / "out.json.journal").exists()


def run_with(server: RunningServer) -> tuple[str | Path, ...]:
    return ("vad", "data.json", "-o", "out.json", "--registry", server.registry)


def test_a_server_killed_in_the_middle_of_a_run_costs_nothing(
    cli: Cli, manifest: list[Line], start_vad: StartServer
) -> None:
    doomed, other = start_vad(), start_vad()
    client = cli.start(*run_with(doomed))
    wait_until(lambda: calls(doomed) > 3 and calls(other) > 3)
    doomed.process.kill()
    _, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert f"{doomed.target} is suspended" in err
    check_output(cli, manifest)


@pytest.mark.parametrize("nowhere", ["a full disk", "a reader that has gone"])
def test_what_cannot_be_said_costs_nothing(
    cli: Cli, manifest: list[Line], start_vad: StartServer, nowhere: str
) -> None:
    doomed, other = start_vad(), start_vad()
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as unread, Path("/dev/full").open("w") as full:
        standard_error = full if nowhere == "a full disk" else unread
        client = cli.start(*run_with(doomed), stderr=standard_error)
    wait_until(lambda: calls(doomed) > 3 and calls(other) > 3)
    doomed.process.kill()
    assert client.wait(60) == 0
    check_output(cli, manifest)


def test_a_server_told_to_end_drains_and_nothing_fails(
    cli: Cli, manifest: list[Line], start_vad: StartServer
) -> None:
    leaving, other = start_vad(), start_vad()
    client = cli.start(*run_with(leaving))
    wait_until(lambda: calls(leaving) > 3 and calls(other) > 3)
    assert leaving.terminate() == 0
    _, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert calls(other) > 3
    check_output(cli, manifest)


def test_a_server_that_comes_during_a_run_helps(cli: Cli, start_vad: StartServer) -> None:
    # The run must last for longer than the second server takes to start and to be found.
    manifest = clips(1000, 1.5)
    cli.write("data.json", *manifest)
    first = start_vad()
    client = cli.start(*run_with(first))
    wait_until(lambda: calls(first) > 3)
    second = start_vad()
    _, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    check_output(cli, manifest)
    assert calls(second) > 0


def test_a_killed_client_goes_on_where_it_was(cli: Cli, manifest: list[Line], start_vad: StartServer) -> None:
    server = start_vad()
    client = cli.start(*run_with(server))
    wait_until(lambda: cli.count_lines("out.json.journal") > 20)
    client.kill()
    client.communicate(timeout=30)
    journal = cli.folder / "out.json.journal"
    torn = journal.read_bytes()[:-7]
    journal.write_bytes(torn)
    kept = torn.count(b"\n") - 1
    before = calls(server)

    run = cli.run(*run_with(server), "--json")

    assert json.loads(run.stdout)["resumed"] == kept
    # What the killed client had under way may end after it.
    assert 200 - kept <= calls(server) - before <= 200 - kept + 2
    check_output(cli, manifest)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_client_says_how_to_go_on(
    cli: Cli, manifest: list[Line], start_vad: StartServer, number: signal.Signals
) -> None:
    server = start_vad()
    client = cli.start(*run_with(server), "--restart")
    wait_until(lambda: calls(server) > 20)
    client.send_signal(number)
    _, err = client.communicate(timeout=30)
    assert client.returncode == 128 + number
    assert err.endswith(f"To go on:\n  amela-client vad data.json -o out.json --registry {server.registry}\n")
    assert "Traceback" not in err
    assert not (cli.folder / "out.json").exists()
    # Everything that was answered is kept, not only what the last second's flush had.
    kept = cli.count_lines("out.json.journal") - 1
    assert kept >= 20
    assert json.loads(cli.run(*run_with(server), "--json").stdout)["resumed"] == kept
    check_output(cli, manifest)


def test_a_run_that_loses_its_last_server_keeps_what_is_done(
    cli: Cli, manifest: list[Line], start_vad: StartServer
) -> None:
    server = start_vad()
    client = cli.start(*run_with(server), "--wait", "1")
    wait_until(lambda: calls(server) > 20)
    server.process.kill()
    _, err = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "no server takes calls" in err and "Traceback" not in err
    kept = cli.count_lines("out.json.journal") - 1
    assert kept >= 20
    other = start_vad()
    assert json.loads(cli.run(*run_with(other), "--json").stdout)["resumed"] == kept
    check_output(cli, manifest)


def test_only_one_client_works_on_a_run(cli: Cli, manifest: list[Line], start_vad: StartServer) -> None:
    server = start_vad()
    client = cli.start(*run_with(server))
    wait_until(lambda: calls(server) > 3)
    for options in ((), ("--restart",)):
        assert "another client" in cli.run(*run_with(server), *options, code=1).stderr
    client.communicate(timeout=60)
    assert client.returncode == 0
    check_output(cli, manifest)


def test_results_of_different_models_are_not_mixed_unless_asked_for(
    cli: Cli, start_fake: StartServer
) -> None:
    one, other = start_fake("--fingerprint", "1" * 16), start_fake("--fingerprint", "2" * 16)
    cli.write("data.json", *({"audio_filepath": f"/entry{index}:0.05"} for index in range(100)))
    run = ("transcribe", "data.json", "-o", "out.json", "--registry", one.registry)

    # Servers that differ.
    err = cli.run(*run, code=1).stderr
    assert all(part in err for part in (one.target, other.target, "1" * 16, "2" * 16, "--mix-models"))
    assert cli.names() == ["data.json"]

    # A run that was stopped, and only another server now.
    stopped = cli.start(*run, "--server", one.target)
    wait_until(lambda: calls(one, "Transcribe") > 3)
    stopped.send_signal(signal.SIGINT)
    stopped.communicate(timeout=30)
    err = cli.run(*run, "--server", other.target, code=1).stderr
    assert f"out.json.journal has results of fake fake (fingerprint {'1' * 16})" in err
    assert all(part in err for part in ("2" * 16, "--restart", "--mix-models"))

    cli.run(*run, "--server", other.target, "--mix-models")
    lines = cli.read("out.json")
    assert [line["text"] for line in lines] == [f"entry{index}" for index in range(100)]
    assert {line["asr_model"]["fingerprint"] for line in lines} == {"1" * 16, "2" * 16}


def test_failures_that_may_pass_are_tried_again_by_the_same_command(
    cli: Cli, start_fake: StartServer
) -> None:
    server = start_fake()
    paths = ["/a:0", "/fail:STORAGE_FAILED", "/b:0", "/fail:AUDIO_CORRUPT"]
    cli.write("data.json", *({"audio_filepath": path} for path in paths))
    run = ("transcribe", "data.json", "-o", "out.json", "--registry", server.registry)

    first = cli.run(*run, code=3)
    assert [line["text"] for line in cli.read("out.json")] == ["a", "b"]
    reasons = {error["reason"]: error["message"] for error in cli.read("out.errors.jsonl")}
    assert set(reasons) == {"STORAGE_FAILED", "AUDIO_CORRUPT"}
    assert reasons["STORAGE_FAILED"].endswith("(after 3 tries)")
    assert "1 of those may succeed later: give the same command again" in first.stderr

    tries = calls(server, "Transcribe", "UNAVAILABLE")
    again = cli.run(*run, "--json", code=3)
    assert json.loads(again.stdout)["resumed"] == 3
    assert calls(server, "Transcribe", "UNAVAILABLE") == 2 * tries == 6
    assert calls(server, "Transcribe") == 2
    assert len(cli.read("out.json")) == len(cli.read("out.errors.jsonl")) == 2


def test_a_full_disk_is_named_and_costs_nothing(
    cli: Cli, manifest: list[Line], start_vad: StartServer
) -> None:
    server = start_vad()
    disk = cli.folder / "disk"
    disk.mkdir()
    amela = f"{program('amela-client')} vad {cli.folder}/data.json -o out.json --registry {server.registry}"
    script = f"""
        mount -t tmpfs -o size=32k tmpfs {disk} && cd {disk} || exit 99
        {amela}; echo "exit code $?" >&2; ls >&2
        mount -o remount,size=4m {disk}
        {amela} --json || exit 1
        cp out.json {cli.folder}
    """
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if run.returncode == 99 or shutil.which("unshare") is None:
        pytest.skip(f"no disk of one's own can be mounted here: {run.stderr}")
    assert run.returncode == 0, run.stderr
    assert "exit code 1\n" in run.stderr
    assert "out.json.journal cannot be written: No space left on device; free some space" in run.stderr
    assert "Traceback" not in run.stderr
    assert 0 < json.loads(run.stdout)["resumed"] < 200
    check_output(cli, manifest)

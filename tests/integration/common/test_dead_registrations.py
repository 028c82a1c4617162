"""What a server does with the registrations that others have left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from amela_common.server.dead_registrations import remove_dead
from amela_common.server.registration import new_server_id

from tests.conftest import wait_until

ECHO = [sys.executable, str(Path(__file__).parent / "echo_server.py")]
SERVICE = "amela.vad.v1.VadService"
GONE_FOR_A_DAY = 90_000


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o700)
    return registry


def leave(registry: Path, pid: int, *, id_: str = "", started: float = 0, heartbeat: float = 0) -> Path:
    """Leave a registration behind, of so many seconds ago."""

    def ago(seconds: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))

    id_ = id_ or new_server_id(SERVICE)
    path = registry / f"{id_}.json"
    fields = {"id": id_, "service": SERVICE, "host": "127.0.0.1", "port": 1, "pid": pid}
    path.write_text(json.dumps({**fields, "started": ago(started), "heartbeat": ago(heartbeat)}))
    return path


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_server_removes_what_one_that_was_killed_left_behind(start_server: Any) -> None:
    victim = start_server(ECHO)
    left = victim.registry / f"{victim.registration['id']}.json"
    victim.process.kill()
    victim.process.wait()
    assert left.exists()
    other = start_server(ECHO)
    assert [path.stem for path in victim.registry.glob("*.json")] == [other.registration["id"]]


def test_the_registration_of_a_server_that_lives_stays(start_server: Any) -> None:
    one = start_server(ECHO)
    start_server(ECHO)
    assert (one.registry / f"{one.registration['id']}.json").exists()


def test_a_killed_server_that_its_parent_has_not_buried_is_dead(registry: Path) -> None:
    process = subprocess.Popen([*ECHO, "--registry", str(registry), "--host", "127.0.0.1"])
    wait_until(lambda: list(registry.glob("*.json")))
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    remove_dead(registry)
    assert not list(registry.glob("*.json"))
    process.wait()


def test_a_process_that_began_after_the_server_is_another_one(registry: Path) -> None:
    left = leave(registry, os.getpid(), started=86_000)
    remove_dead(registry)
    assert not left.exists()


def test_of_another_host_only_what_has_been_silent_for_a_day_is_removed(
    registry: Path, dead_pid: int
) -> None:
    silent = leave(registry, dead_pid, id_="vad-other-node-0123456789ab", heartbeat=GONE_FOR_A_DAY)
    late = leave(registry, dead_pid, id_="vad-other-node-abcdef012345", heartbeat=3600)
    remove_dead(registry)
    assert not silent.exists()
    assert late.exists()


def test_what_is_no_registration_is_left_alone(registry: Path) -> None:
    contents = {
        "half.json": b'{"id": "vad-',
        "binary.json": b"\xff\xfe",
        "other.json": b'{"pid": 1}',
        "token": b"x",
    }
    for name, content in contents.items():
        (registry / name).write_bytes(content)
    (registry / "folder.json").mkdir()
    os.mkfifo(registry / "pipe.json")
    remove_dead(registry)
    assert {path.name for path in registry.iterdir()} == {*contents, "folder.json", "pipe.json"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users' files")
def test_other_users_registrations_are_left_alone(registry: Path, dead_pid: int) -> None:
    left = leave(registry, dead_pid, heartbeat=GONE_FOR_A_DAY)
    os.chown(left, 64001, 64001)
    remove_dead(registry)
    assert left.exists()

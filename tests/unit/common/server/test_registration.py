"""A server's entry in the registry while its file system is slow."""

import os
import threading
from pathlib import Path

import pytest
from amela.common.v1.registration_pb2 import Registration
from amela_common.server.registration import RegistrationFile
from amela_common.server.registry_folder import RegistryFolder


@pytest.fixture
def entry(tmp_path: Path) -> RegistrationFile:
    return RegistrationFile(RegistryFolder(tmp_path), Registration(id="asr-node7-1"))


def test_a_heartbeat_that_is_being_written_does_not_outlive_the_removal(
    entry: RegistrationFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    real_fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        writing.set()
        may_go_on.wait(30)
        real_fsync(descriptor)

    entry.write()
    monkeypatch.setattr(os, "fsync", slow_fsync)
    heartbeat = threading.Thread(target=entry.write)
    heartbeat.start()
    assert writing.wait(30)
    removal = threading.Thread(target=entry.remove)
    removal.start()
    # On its way or through: in neither case may the file come back.
    removal.join(0.2)
    may_go_on.set()
    heartbeat.join()
    removal.join()

    assert not list(tmp_path.glob("*.json"))


def test_what_is_removed_is_not_written_again(entry: RegistrationFile, tmp_path: Path) -> None:
    entry.write()
    entry.remove()
    entry.write()
    entry.remove()

    assert not list(tmp_path.glob("*.json"))

"""Lines that a disk takes late, or says that it has not taken."""

import errno
import os
from pathlib import Path

import pytest
from amela_client.append_log import AppendLog
from amela_client.errors import JournalError


def test_lines_of_which_the_disk_does_not_say_that_it_has_them_are_written_again_and_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    log = AppendLog(descriptor, 0, path, interval=3600)
    log.append(b"first\n")
    log.flush()

    def fsync(descriptor: int) -> None:
        # As of a file system in a network, which has room for nothing any more, nor for what it took before.
        os.ftruncate(descriptor, len(b"first\nsec"))
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    log.append(b"second\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(JournalError, match="free some space"):
            log.flush()
    log.flush()
    assert path.read_bytes() == b"first\nsecond\n"
    assert log.append(b"third\n") == len(b"first\nsecond\n")
    log.close()
    os.close(descriptor)
    assert path.read_bytes() == b"first\nsecond\nthird\n"

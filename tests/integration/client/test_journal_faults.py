import subprocess
import sys
from pathlib import Path

import pytest
from amela_client.journal import Journal, RunKey

KEY = RunKey("01ef", "vad")

ENDLESS_RUN = """
import sys
from amela_client.journal import Journal, RunKey

journal = Journal.open(sys.argv[1], RunKey("01ef", "vad"), interval=0.01)
index = len(journal)
while True:
    journal.record(index, {"text": f"entry {index}"})
    index += 1
"""

RUN_ON_A_SMALL_DISK = """
import sys
import time
from pathlib import Path

from amela_client.errors import JournalError
from amela_client.journal import Journal, RunKey

folder = Path(sys.argv[1])
(folder / "filler").write_bytes(bytes(100_000))
journal = Journal.open(folder / "journal", RunKey("01ef", "vad"), interval=0.01)
recorded = 0
try:
    while True:
        journal.record(recorded, {"text": f"entry {recorded}"})
        recorded += 1
        if recorded % 100 == 0:
            time.sleep(0.005)
except JournalError as error:
    assert "No space left" in str(error) and "free some space" in str(error), error
(folder / "filler").unlink()
journal.close()
with Journal.open(folder / "journal", RunKey("01ef", "vad")) as journal:
    assert len(journal) == recorded > 0
    assert all(journal.read(index) == {"text": f"entry {index}"} for index in range(recorded))

journal = Journal.open(folder / "journal", RunKey("01ef", "vad"), interval=3600)
journal.record(recorded, {"text": "x" * 1_000_000})
try:
    journal.close()
except JournalError:
    # Half of that line is on the disk.
    with Journal.open(folder / "journal", RunKey("01ef", "vad")) as journal:
        assert len(journal) == recorded
    sys.exit(0)
sys.exit("the disk took it all")
"""


def test_a_killed_client_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    before = 0
    for _ in range(3):
        client = subprocess.Popen([sys.executable, "-c", ENDLESS_RUN, path])
        try:
            while client.poll() is None and (not path.exists() or path.stat().st_size < before + 100_000):
                pass
        finally:
            client.kill()
            client.wait()
        on_disk = path.read_bytes().count(b"\n") - 1
        before = path.stat().st_size
        with Journal.open(path, KEY) as journal:
            assert len(journal) == on_disk > 0
            assert all(journal.read(index) == {"text": f"entry {index}"} for index in range(on_disk))


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    probe = subprocess.run([*mount, f"mount -t tmpfs tmpfs {tmp_path}"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    command = f'mount -t tmpfs -o size=600k tmpfs {tmp_path}; exec "$0" -c "$1" {tmp_path}'
    result = subprocess.run(
        [*mount, command, sys.executable, RUN_ON_A_SMALL_DISK], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr

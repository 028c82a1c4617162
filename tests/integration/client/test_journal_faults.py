import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from amela_client.journal import Journal, RunKey
from amela_client.manifest import Manifest
from amela_client.run import journal_path
from amela_client.stages import Transcription

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

MERGE_THAT_IS_KILLED = """
import asyncio
import os
import signal
import sys
from unittest.mock import patch

from amela_client.client import AmelaClient
from amela_client.manifest import Manifest
from amela_client.run import run_manifest
from amela_client.stages import Transcription


def kill(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(path: str, output: str, killed_at: str) -> None:
    if killed_at:
        patch(f"amela_client.{killed_at}", kill).start()
    async with AmelaClient(path + ".registry", wait=0) as client:
        in_place = path == output
        summary = await run_manifest(client, Transcription(), Manifest(path), output, in_place=in_place)
        print(summary.results, summary.skipped)


asyncio.run(main(*sys.argv[1:]))
"""


def merge(manifest: Path, output: Path, killed_at: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MERGE_THAT_IS_KILLED, manifest, output, killed_at]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def finished_run(folder: Path, output: str) -> tuple[Path, Path]:
    """Return a manifest and an output whose journal has all results."""
    manifest = folder / "data.json"
    manifest.write_text('{"audio_filepath": "/a.wav"}\n{"audio_filepath": "/b.wav"}\n')
    stage = Transcription()
    key = RunKey(Manifest(manifest).digest, stage.name, stage.options, str(folder))
    with Journal.open(journal_path(folder / output), key) as journal:
        for index in range(2):
            journal.record(index, {"text": f"entry {index}"})
    return manifest, folder / output


def test_a_client_killed_when_all_is_in_the_manifest_has_nothing_left_to_do(tmp_path: Path) -> None:
    manifest, output = finished_run(tmp_path, "data.json")
    assert merge(manifest, output, killed_at="journal.Journal.discard").returncode == -signal.SIGKILL
    assert journal_path(output).exists()
    again = merge(manifest, output)
    assert (again.returncode, again.stdout) == (0, "0 2\n"), again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert [json.loads(line)["text"] for line in manifest.open()] == ["entry 0", "entry 1"]


@pytest.mark.parametrize("output", ["out.json", "data.json"])
def test_what_killed_merges_left_goes_with_the_next_one(tmp_path: Path, output: str) -> None:
    manifest, path = finished_run(tmp_path, output)
    for killed_at in ("merge.with_fields", "merge.with_fields", "atomic_file.Path.replace"):
        assert merge(manifest, path, killed_at=killed_at).returncode == -signal.SIGKILL
        assert len(list(tmp_path.glob(f".{output}.*.tmp"))) == 1
    again = merge(manifest, path)
    assert (again.returncode, again.stdout) == (0, "2 0\n"), again.stderr
    assert {left.name for left in tmp_path.iterdir()} == {"data.json", output}


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

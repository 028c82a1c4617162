"""Tasks of a job array against a server: what they write together is what one run writes."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer
from tests.integration.client.conftest import Cli

SERVER = [sys.executable, str(Path(__file__).parent / "fake_sts_server.py")]
# A stretch, a folder of its own, what the server cannot read, what is there twice.
LINES = [
    {"audio_filepath": "/corpus/a/1.wav"},
    {"audio_filepath": "/corpus/a/2.wav", "offset": 1.5, "duration": 2.0},
    {"audio_filepath": "/corpus/b/1.wav"},
    {"audio_filepath": "/corpus/a/fail-AUDIO_CORRUPT.wav"},
    {"audio_filepath": "/corpus/a/1.wav", "again": True},
]


@pytest.fixture(scope="module")
def sts(start_module_server: StartServer) -> RunningServer:
    return start_module_server(SERVER)


@pytest.mark.parametrize("stage", ["resynthesize", "encode"])
def test_files_and_lists_of_shares_are_those_of_one_run(cli: Cli, sts: RunningServer, stage: str) -> None:
    cli.write("data.json", *LINES)
    registry = ("--registry", sts.registry)

    def into(folder: str) -> tuple[str, str]:
        return ("--output" if stage == "resynthesize" else "--npz", folder)

    results = ("-o", "one/manifest.json") if stage == "encode" else ()
    (cli.folder / "one").mkdir()
    cli.run(stage, "data.json", *into("one"), *results, *registry, code=3)
    cli.run("manifest", "split", "data.json", "--splits", "3")
    codes = []
    for task in ("0", "1", "2"):
        process = cli.start("task", stage, "splits", "--task-id", task, "--", *into("many"), *registry)
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert codes == [3, 3, 0]
    cli.run("manifest", "merge", "splits", "-o", "many/manifest.json", code=3)

    def everything(folder: str) -> dict[str, bytes]:
        return {
            # In the lines, only the folder differs.
            str(path.relative_to(cli.folder / folder)): path.read_bytes().replace(
                f"/{folder}/".encode(), b"/"
            )
            for path in (cli.folder / folder).rglob("*")
            if path.is_file()
        }

    assert everything("many") == everything("one")
    assert len(everything("one")) == 5
    assert json.loads((cli.folder / "many" / "manifest.json").read_text().splitlines()[1])["offset"] == 1.5

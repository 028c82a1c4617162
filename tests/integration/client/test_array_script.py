"""The script of a job array's tasks where it needs no SLURM: what it refuses, and what it leaves behind."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import program, wait_until
from tests.integration.client.conftest import Cli, clips

SCRIPT = Path(__file__).parents[3] / "slurm" / "array.slurm"
MERGE = SCRIPT.with_name("merge.slurm")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(cli: Cli, tmp_path: Path) -> Start:
    """Start a task as SLURM would, but for SLURM."""
    (tmp_path / "tmp").mkdir()
    ours = Path(program("amela-client")).parent

    def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        own = {
            "TMPDIR": str(tmp_path / "tmp"),
            "AMELA_SITE": "",
            "SLURM_ARRAY_TASK_ID": "1",
            "AMELA_WORKERS": "1",
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=cli.folder,
            env={**os.environ, "PATH": f"{ours}:{os.environ['PATH']}", **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ("vad splits", {"SLURM_ARRAY_TASK_ID": ""}, "this is no job array: submit it with --array=0-N"),
        ("vad splits", {"SLURM_ARRAY_TASK_ID": "2"}, "there is no task 2: {folder}/splits has 2"),
        ("sing splits", {}, "there is no stage 'sing'"),
        ("vad nowhere", {}, "there is no folder {folder}/nowhere"),
        ("vad", {}, "give a stage and the folder of a run"),
        ("vad splits -- --sing", {}, "No such option: --sing"),
        ("vad splits", {"AMELA_IMAGE": "/no.sif"}, "the image /no.sif cannot be read"),
        ("vad splits", {"AMELA_CLIENT_IMAGE": "/no.sif"}, "name another with AMELA_CLIENT_IMAGE"),
        ("vad splits", {"AMELA_AUDIO_ROOT": "/nowhere"}, "the audio folder /nowhere is not there"),
        ("transcribe splits", {"AMELA_MODEL": "/no.nemo"}, "the model /no.nemo cannot be read"),
        ("vad splits", {"TMPDIR": "/dev/shm/none"}, "/dev/shm/none is no folder on"),
        ("vad splits", {"PATH": "/usr/bin:/bin"}, "amela-vad is not on PATH"),
        ("vad splits", {"AMELA_WORKERS": "none"}, "amela-vad ended with exit code 2"),
    ],
)
def test_what_cannot_work_ends_at_once_with_exit_code_2_and_the_cure(
    cli: Cli, start: Start, arguments: str, environment: dict[str, str], words: str
) -> None:
    cli.write("data.json", *clips(4))
    cli.run("manifest", "split", "data.json", "--splits", "2")
    task = start(*arguments.split(), **environment)
    said, _ = task.communicate(timeout=60)
    assert words.format(folder=cli.folder) in said
    assert task.returncode == 2


def test_a_task_leaves_its_results_and_nothing_else_and_is_not_done_twice(
    cli: Cli, start: Start, tmp_path: Path
) -> None:
    cli.write("data.json", *clips(4))
    cli.run("manifest", "split", "data.json", "--splits", "2")
    said, _ = start("vad", "splits").communicate(timeout=60)
    assert f"task 1 of {cli.folder}/splits on" in said
    result = cli.folder / "splits" / "results" / "data_split_01.json"
    written = result.stat().st_mtime_ns
    assert list((tmp_path / "tmp").iterdir()) == []
    again = start("vad", "splits")
    assert "task 1 is done: nothing is left to do" in again.communicate(timeout=60)[0]
    assert (again.returncode, result.stat().st_mtime_ns) == (0, written)


def test_a_task_that_is_told_to_end_leaves_a_journal_to_go_on_from(
    cli: Cli, start: Start, tmp_path: Path
) -> None:
    cli.write("data.json", *clips(40))
    cli.run("manifest", "split", "data.json", "--splits", "2")
    journal = cli.folder / "splits" / "results" / "data_split_01.json.journal"
    task = start("transcribe", "splits")
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1, 60)
    task.send_signal(signal.SIGTERM)
    assert "To go on:" in task.communicate(timeout=60)[0]
    assert task.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "task 1 is unfinished" in cli.run("manifest", "merge", "splits", "-o", "x", code=1).stderr


@pytest.fixture
def merge(cli: Cli, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the script that puts results together, with a client of an image that only says its arguments."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "apptainer").chmod(0o755)

    def merge(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", str(MERGE), *arguments],
            cwd=cli.folder,
            env={
                **os.environ,
                "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
                "AMELA_SITE": "",
                "AMELA_CLIENT_IMAGE": "/client.sif",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return merge


@pytest.mark.parametrize(("binds", "further"), [("", []), ("/scratch,/m:/m:ro", ["/scratch,/m:/m:ro"])])
def test_the_clients_image_sees_the_folders_of_all_that_is_put_together(
    cli: Cli, merge: Callable[..., "subprocess.CompletedProcess[str]"], binds: str, further: list[str]
) -> None:
    (cli.folder / "far").mkdir()
    (cli.folder / "tables").symlink_to(cli.folder / "far")
    done = merge("done.run", "out/done.json", "--csv", "tables/vad.csv", AMELA_BINDS=binds)
    here = cli.folder.resolve()
    bound = [f"{here}/done.run", f"{here}/out", str(cli.folder), f"{here}/far", *further]
    assert done.stdout.split() == [
        "run",
        *(word for folder in bound for word in ("--bind", folder)),
        "/client.sif",
        *("manifest", "merge", f"{here}/done.run", "--output", f"{here}/out/done.json"),
        *("--csv", f"{here}/far/vad.csv"),
    ]
    assert merge("done.run", "done.json").stdout.split()[-2:] == ["--output", f"{here}/done.json"]


def test_a_site_file_that_others_could_have_put_there_is_not_read(
    cli: Cli, start: Start, merge: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    own = tmp_path / ".amela"
    own.mkdir()
    (own / "site.env").write_text("echo planted\n")
    own.chmod(0o775)
    environment = {"HOME": str(tmp_path), "AMELA_SITE": f"{own}/site.env"}
    words = f"amela: {own} can be written by others, who could put files of their own there; run: chmod go-w"
    task = start("vad", "splits", **environment)
    said, _ = task.communicate(timeout=60)
    done = merge("done.run", "done.json", **environment)
    for code, text in ((task.returncode, said), (done.returncode, done.stdout + done.stderr)):
        assert (code, words in text, "planted" in text) == (2, True, False)
    own.chmod(0o755)
    assert merge("done.run", "done.json", **environment).stdout.startswith("planted\n")

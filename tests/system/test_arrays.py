"""Job arrays on a real SLURM: tasks with servers of their own, killed, requeued, run again, put together."""

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..conftest import EXAMPLES, program, wait_until
from ..integration.client.conftest import Line, clips
from .images_built import APPTAINER, Images
from .slurm_cluster import SlurmCluster

SLURM = Path(__file__).parents[2] / "slurm"


class Work:
    """A folder with manifests, and the commands that users type there."""

    def __init__(self, folder: Path, slurm: SlurmCluster) -> None:
        self.folder = folder
        self.slurm = slurm
        (folder / "tmp").mkdir()

    def write(self, *lines: Line) -> None:
        (self.folder / "data.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def client(self, *arguments: str | Path, code: int = 0, path: str = "", client_image: str = "") -> str:
        """Run `amela-client` to its end, and return what it says."""
        environment = {"PATH": f"{path}:{self.slurm.env['PATH']}"} if path else {}
        if client_image:
            environment["AMELA_CLIENT_IMAGE"] = client_image
        done = self.slurm.run(
            "env", "-C", self.folder, "amela-client", *arguments, code=code, timeout=120, **environment
        )
        return done.stdout + done.stderr

    def array(self, tasks: str, *arguments: str | Path, **environment: str) -> str:
        """Submit `array.slurm` by hand, two tasks at the same time."""
        return self.slurm.run(
            "sbatch", "--parsable", f"--chdir={self.folder}", f"--array={tasks}%2", "--gres=gpu:1",
            "--output=%A_%a.log", SLURM / "array.slurm", *arguments,
            **{"TMPDIR": str(self.folder / "tmp"), "AMELA_WORKERS": "1", **environment},
        ).stdout.strip()  # fmt: skip

    def wait(self, *jobs: str, timeout: float = 180) -> None:
        """Wait until none of the jobs waits or runs."""
        queue = ("squeue", "--noheader", f"--jobs={','.join(jobs)}")
        wait_until(lambda: not self.slurm.run(*queue, code=None).stdout, timeout)

    def log(self, job: str, task: int) -> str:
        return (self.folder / f"{job}_{task}.log").read_text()

    def journaled(self, task: int, run: str = "splits") -> int:
        """Count the entries in a task's journal."""
        journal = self.folder / run / "results" / f"data_split_{task:02}.json.journal"
        return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0

    def processes(self, job: str, task: int) -> list[psutil.Process]:
        """Find every process of a task, which inherits where it belongs."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if environment.get("SLURM_CONF") == str(self.slurm.conf) and (
                environment.get("SLURM_ARRAY_JOB_ID"),
                environment.get("SLURM_ARRAY_TASK_ID"),
            ) == (job, str(task)):
                found.append(process)
        return found

    def hold_midway(self, job: str, task: int) -> None:
        """Wait until a task has done some entries, and stop its server so that it cannot do the others."""
        wait_until(lambda: self.journaled(task), 120)
        for process in self.processes(job, task):
            if "amela-asr" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGSTOP)

    def merged(self) -> bytes:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("done.run/logs/*.log")]
        assert (self.folder / "done.json").exists(), "\n".join(log.read_text() for log in logs)
        return (self.folder / "done.json").read_bytes()

    def one_run(self) -> bytes:
        """Return what one client and one server make of the whole manifest."""
        self.client("vad", "data.json", "-o", "one.json", "--local")
        return (self.folder / "one.json").read_bytes()


@pytest.fixture
def work(tmp_path: Path, slurm: SlurmCluster) -> Work:
    return Work(tmp_path, slurm)


def spoken(count: int, seconds: float = 1.0) -> list[Line]:
    return [{**line, "text_ref": "é"} for line in clips(count, seconds)]


def test_seven_tasks_by_hand_make_what_one_run_makes(work: Work) -> None:
    lines = spoken(30)
    missing = {"audio_filepath": str(EXAMPLES / "nowhere.flac"), "id": "nowhere"}
    work.write(*lines[:9], missing, *lines[9:], lines[2])
    work.client("manifest", "split", "data.json", "--splits", "7")
    job = work.array("0-6", "vad", "splits", "--", "--min-speech", "0.1")
    work.wait(job)
    assert work.client("manifest", "tasks", "splits").splitlines()[-1] == "7 of 7 tasks are done"
    said = work.client("manifest", "merge", "splits", "-o", "done.json", "--csv", "done.csv", code=3)
    assert "30 lines of 7 shares" in said
    assert "2 entries quarantined" in said
    assert (work.folder / "done.csv").read_text().count("\n") == 31
    work.client("vad", "data.json", "-o", "one.json", "--min-speech", "0.1", "--local", code=3)
    for name in ("json", "errors.jsonl"):
        assert (work.folder / f"done.{name}").read_bytes() == (work.folder / f"one.{name}").read_bytes()
    # A task with quarantined entries is done as well, and says so.
    assert "task 2 is done; the entries without a result are in" in work.log(job, 2)
    assert work.slurm.job(f"{job}_2")["ExitCode"] == "0:0"
    assert not list((work.folder / "tmp").iterdir())


@pytest.fixture(scope="module")
def transcribed(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Lines that one client and one server make of 27 clips."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "data.json").write_text("".join(f"{json.dumps(line)}\n" for line in spoken(27, 2.0)))
    command = [program("amela-client"), "transcribe", "data.json", "-o", "one.json", "--local", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, timeout=180)
    return (folder / "one.json").read_bytes().splitlines(keepends=True)


def test_tasks_that_were_killed_are_named_and_run_again_alone(work: Work, transcribed: list[bytes]) -> None:
    work.write(*spoken(27, 2.0))
    work.client("manifest", "split", "data.json", "--splits", "3")
    job = work.array("0-2", "transcribe", "splits")
    work.hold_midway(job, 0)
    for process in work.processes(job, 0):
        process.kill()
    work.hold_midway(job, 1)
    work.slurm.run("scancel", f"{job}_1")
    work.wait(job)
    states = work.client("manifest", "tasks", "splits").splitlines()
    for task in (0, 1):
        assert states[task].strip() == f"{task}  unfinished, {work.journaled(task)} of 9 entries"
    assert states[2:] == ["    2  done", "1 of 3 tasks are done; run the others: --array=0-1"]
    said = work.client("manifest", "merge", "splits", "-o", "done.json", code=1)
    assert "2 of 3 tasks in splits are not done: task 0 is unfinished" in said
    assert not (work.folder / "done.json").exists()

    rerun = work.array("0,1", "transcribe", "splits")
    work.wait(rerun)
    for task in (0, 1):
        assert "settled by the run before this one" in work.log(rerun, task)
    work.client("manifest", "merge", "splits/results/*", "-o", "done.json")
    assert work.merged() == b"".join(transcribed)


def test_a_task_that_is_requeued_goes_on_where_it_was(work: Work, transcribed: list[bytes]) -> None:
    work.write(*spoken(18, 2.0))
    work.client("manifest", "split", "data.json", "--splits", "2")
    job = work.array("0-1", "transcribe", "splits")
    work.hold_midway(job, 1)
    done = work.journaled(1)
    work.slurm.run("scontrol", "requeue", f"{job}_1")
    # What was stopped so that it cannot finish has to be able to end.
    wait_until(lambda: "restart 1: " in work.log(job, 1), 120)
    work.wait(job)
    log = work.log(job, 1)
    assert "To go on:" in log
    assert f"restart 1: {9 - done} entries left" in log
    assert f"{done} settled by the run before this one" in log
    work.client("manifest", "merge", "splits", "-o", "done.json")
    assert work.merged() == b"".join(transcribed[:18])


def test_a_submission_splits_runs_merges_and_knows_when_all_is_done(work: Work) -> None:
    work.write(*spoken(12))
    command = ("submit", "vad", "data.json", "--tasks", "3", "-o", "done.json", "--gres", "gpu:1")
    first = json.loads(work.client(*command, "--json"))
    assert first["submitted"]["tasks"] == "0-2"
    again = json.loads(work.client(*command, "--json"))
    assert again["submitted"] == {"job": None, "tasks": ""}
    assert again["queued"] == {"jobs": [first["submitted"]["job"]], "tasks": "0-2"}
    assert again["merge"] == first["merge"]
    assert "threshold was null, now it is 0.4" in work.client(*command, "--", "--threshold", "0.4", code=2)
    work.wait(first["submitted"]["job"], first["merge"])
    assert "3 of 3 tasks of 12 entries are done, and put together in" in work.client(*command)
    assert work.merged() == work.one_run()

    (work.folder / "done.run" / "results" / "data_split_01.json").unlink()
    third = json.loads(work.client(*command, "--json"))
    assert third["submitted"]["tasks"] == "1"
    work.wait(third["submitted"]["job"], third["merge"])
    assert work.merged() == work.one_run()


def test_a_submission_that_is_killed_between_two_jobs_is_finished_by_the_same_command(work: Work) -> None:
    work.write(*spoken(6))
    command = ("submit", "vad", "data.json", "--tasks", "2", "-o", "done.json", "--gres", "gpu:1")
    # As a kill after the split leaves it.
    work.client("manifest", "split", "data.json", "--splits", "2", "-o", "done.run")
    (work.folder / "done.run" / "data_split_01.json").unlink()
    wrapper = work.folder / "bin" / "sbatch"
    wrapper.parent.mkdir()
    real = work.slurm.run("which", "sbatch").stdout.strip()
    wrapper.write_text(f'#!/bin/bash\n{real} --hold "$@"\nkill -KILL $PPID\n')
    wrapper.chmod(0o755)
    work.client(*command, code=-signal.SIGKILL, path=str(wrapper.parent))
    second = json.loads(work.client(*command, "--json"))
    assert second["submitted"]["job"] is None
    assert second["queued"]["tasks"] == "0-1"
    work.slurm.run("scontrol", "release", *second["queued"]["jobs"])
    work.wait(*second["queued"]["jobs"], second["merge"])
    assert work.merged() == work.one_run()


def test_the_merge_job_fails_and_names_the_tasks_that_are_not_done(work: Work) -> None:
    work.write(*spoken(6), {"audio_filepath": "/nowhere.flac"})
    command = ("submit", "vad", "data.json", "--tasks", "2", "-o", "done.json", "--gres", "gpu:1")
    first = json.loads(work.client(*command, "--concurrent", "1", "--json"))
    work.slurm.run("scancel", f"{first['submitted']['job']}_1")
    work.wait(first["submitted"]["job"], first["merge"])
    assert work.slurm.job(first["merge"])["JobState"] == "FAILED"
    log = (work.folder / "done.run" / "logs" / f"merge-{first['merge']}.log").read_text()
    assert "1 of 2 tasks" in log
    assert "task 1 is not started" in log

    second = json.loads(work.client(*command, "--json"))
    assert second["submitted"]["tasks"] == "1"
    work.wait(second["submitted"]["job"], second["merge"])
    assert work.slurm.job(second["merge"])["JobState"] == "COMPLETED"
    assert "1 entries quarantined" in work.client(*command, code=3)


@pytest.fixture
def hidden_folder() -> Iterator[Path]:
    """Give a folder that containers see only if it is bound."""
    with tempfile.TemporaryDirectory(dir="/srv") as name:
        yield Path(name)


def test_servers_and_clients_of_images_see_what_they_need_and_no_more(
    slurm: SlurmCluster, hidden_folder: Path, images: Images
) -> None:
    work = Work(hidden_folder, slurm)
    (hidden_folder / "audio").mkdir()
    lines = spoken(4)
    for line in lines:
        recording = Path(shutil.copy(line["audio_filepath"], hidden_folder / "audio"))
        line["audio_filepath"] = str(recording)
    work.write(*lines)
    command = ("submit", "vad", "data.json", "--tasks", "2", "-o", "done.json", "--gres", "gpu:1", "--json")
    first = json.loads(
        work.client(
            *command, "--image", images("vad"), path=str(APPTAINER.parent), client_image=str(images("client"))
        )
    )
    work.wait(first["submitted"]["job"], first["merge"])
    assert work.merged() == work.one_run()


def test_a_task_that_the_run_does_not_have_fails_at_once(work: Work) -> None:
    work.write(*spoken(4))
    work.client("manifest", "split", "data.json", "--splits", "2")
    options = ("--wait", "--parsable", f"--chdir={work.folder}", "--output=log", "--array=2")
    work.slurm.run("sbatch", *options, SLURM / "array.slurm", "vad", "splits", code=2)
    said = f"there is no task 2: {work.folder}/splits has 2, so give --array=0-1 or a part of that"
    assert said in (work.folder / "log").read_text()

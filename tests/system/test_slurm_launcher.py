"""The launcher on a real SLURM: what it submits, sees and ends."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.slurm import SlurmLauncher
from amela_client.errors import SlurmError, SubmissionError

from ..conftest import wait_until
from .slurm_cluster import KILL_WAIT_SECONDS, SlurmCluster

NAME = "amela-vad-0a1b2c"
WAITS = "sleep 300 & wait"

pytestmark = pytest.mark.usefixtures("slurm")


@pytest.fixture
def launcher() -> SlurmLauncher:
    return SlurmLauncher(patience=0)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    def write(body: str, *options: str, name: str = NAME) -> Path:
        path = tmp_path / "server.slurm"
        lines = [f"--job-name={name}", f"--output={tmp_path}/%j.log", "--time=10", *options]
        path.write_text("\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), body, ""]))
        return path

    return write


def job(launcher: SlurmLauncher, id_: str) -> Job:
    found = {each.id: each for each in launcher.jobs([NAME])} | launcher.past([id_])
    return found[id_]


def test_submitted_job_runs_with_its_node_and_times(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    before = int(time.time())
    id_ = launcher.submit(script(WAITS))
    slurm.wait_for(id_, "RUNNING")
    running = job(launcher, id_)
    assert (running.state, running.name, running.restarts) == (JobState.RUNNING, NAME, 0)
    assert running.node in {"n1", "n2"}
    assert running.submitted is not None
    assert running.started is not None
    assert running.ends is not None
    assert before <= running.submitted <= running.started <= time.time()
    assert running.ends == running.started + 600


def test_options_of_sbatch_come_before_those_of_the_script(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    id_ = launcher.submit(script(WAITS), arguments=["--hold", "--time=5"])
    fields = slurm.job(id_)
    assert (fields["Reason"], fields["TimeLimit"]) == ("JobHeldUser", "00:05:00")


def test_waiting_job_tells_slurms_reason(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    for _ in range(2):
        slurm.wait_for(launcher.submit(script(WAITS, "--gres=gpu:2")), "RUNNING")
    id_ = launcher.submit(script(WAITS, "--gres=gpu:1"))
    wait_until(lambda: job(launcher, id_).reason == "Resources")
    waiting = job(launcher, id_)
    assert (waiting.state, waiting.node, waiting.started) == (JobState.PENDING, "", None)


def test_tasks_of_an_array_are_told_apart(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    id_ = launcher.submit(
        script(f'[ "$SLURM_ARRAY_TASK_ID" != 1 ] || exit 7\n{WAITS}'), arguments=["--array=0-99%2"]
    )
    wait_until(
        lambda: f"{id_}_2" in {each.id for each in launcher.jobs([NAME]) if each.state is JobState.RUNNING}
    )
    jobs = {each.id: each for each in launcher.jobs([NAME])}
    assert jobs.keys() == {f"{id_}_{task}" for task in range(100) if task != 1}
    running = {each for each, known in jobs.items() if known.state is JobState.RUNNING}
    assert running == {f"{id_}_0", f"{id_}_2"}
    ended = launcher.past([f"{id_}_1"])
    assert (ended[f"{id_}_1"].reason, ended[f"{id_}_1"].exit_code) == ("FAILED", 7)
    assert launcher.past([id_]) == ended


def test_jobs_of_other_names_are_not_listed(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    first = launcher.submit(script(WAITS))
    second = launcher.submit(script(WAITS, name="amela-asr-ffffff"))
    launcher.submit(script(WAITS, name=f"{NAME}-else"))
    assert [each.id for each in launcher.jobs([NAME])] == [first]
    assert {each.id for each in launcher.jobs([NAME, "amela-asr-ffffff"])} == {first, second}


def test_without_names_there_are_no_jobs(launcher: SlurmLauncher, script: Callable[..., Path]) -> None:
    launcher.submit(script(WAITS))
    assert launcher.jobs([]) == []


def test_requeued_job_counts_its_restarts(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    id_ = launcher.submit(script(WAITS, "--requeue"))
    slurm.wait_for(id_, "RUNNING")
    slurm.run("scontrol", "requeue", id_)
    wait_until(lambda: job(launcher, id_).reason == "BeginTime")
    assert job(launcher, id_).state is JobState.PENDING
    slurm.wait_for(id_, "RUNNING")
    assert job(launcher, id_).restarts == 1


@pytest.mark.parametrize(
    ("body", "reason", "code"),
    [("exit 0", "COMPLETED", 0), ("exit 3", "FAILED", 3), ("kill -KILL $$", "FAILED", 128 + 9)],
)
def test_job_that_ended_tells_how_without_accounting(
    launcher: SlurmLauncher, script: Callable[..., Path], body: str, reason: str, code: int
) -> None:
    id_ = launcher.submit(script(body))
    wait_until(lambda: launcher.past([id_]))
    ended = launcher.past([id_])[id_]
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.ENDED, reason, code)
    assert launcher.jobs([NAME]) == []


def test_jobs_that_are_forgotten_or_still_there_have_no_end(
    launcher: SlurmLauncher, script: Callable[..., Path]
) -> None:
    id_ = launcher.submit(script(WAITS))
    assert launcher.past([id_, "999999", "999999_3"]) == {}


def test_accounting_is_asked_once_for_all_where_there_is_one(
    launcher: SlurmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    # A stand-in: accounting needs a database server.
    fake_sacct = programs / "sacct"
    fake_sacct.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n'
        "echo '999997|TIMEOUT|0:0|n1|10|20|30|amela'\necho '999998|FAILED|2:0|n1|10|20|30|amela'\n"
    )
    fake_sacct.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    past = launcher.past(["999997", "999998", "999999"])
    assert {id_: (ended.reason, ended.exit_code) for id_, ended in past.items()} == {
        "999997": ("TIMEOUT", None),
        "999998": ("FAILED", 2),
    }
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "--jobs=999997,999998,999999" in asked


def test_cancelled_script_gets_one_sigterm_and_time_beyond_slurms_own(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path], tmp_path: Path
) -> None:
    id_ = launcher.submit(
        script(
            "trap 'echo told' TERM\necho ready\nuntil [ -e end ]; do sleep 0.2; done", f"--chdir={tmp_path}"
        )
    )
    log = tmp_path / f"{id_}.log"
    wait_until(lambda: log.exists() and "ready" in log.read_text())
    launcher.cancel([id_])
    wait_until(lambda: "told" in log.read_text())
    # SLURM's own cancel would have sent SIGKILL by then.
    time.sleep(KILL_WAIT_SECONDS + 3)
    assert job(launcher, id_).state is JobState.RUNNING
    (tmp_path / "end").touch()
    slurm.wait_for(id_, "COMPLETED")
    assert log.read_text().count("told") == 1


def test_waiting_jobs_are_taken_off_the_queue_and_those_that_are_gone_passed_over(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    ended = launcher.submit(script("true"))
    slurm.wait_for(ended, "COMPLETED")
    running, waiting = launcher.submit(script(WAITS)), launcher.submit(script(WAITS, "--begin=now+1hour"))
    slurm.wait_for(running, "RUNNING")
    other = launcher.submit(script(WAITS))
    launcher.cancel([ended, "999999", waiting, running])
    wait_until(lambda: [each.id for each in launcher.jobs([NAME])] == [other])
    assert launcher.past([waiting])[waiting].reason == "CANCELLED"


def test_nothing_is_cancelled_where_nothing_is_named(
    launcher: SlurmLauncher, script: Callable[..., Path]
) -> None:
    id_ = launcher.submit(script(WAITS))
    launcher.cancel([])
    launcher.kill([])
    assert job(launcher, id_).state is not JobState.ENDED


def test_killed_job_ends_though_it_does_not_listen(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path], tmp_path: Path
) -> None:
    id_ = launcher.submit(script("trap 'echo told' TERM\necho ready\nwhile :; do sleep 0.2; done"))
    log = tmp_path / f"{id_}.log"
    wait_until(lambda: log.exists() and "ready" in log.read_text())
    launcher.kill([id_, "999999"])
    wait_until(lambda: job(launcher, id_).state is JobState.ENDING)
    # Again, while it is ending.
    launcher.kill([id_])
    slurm.wait_for(id_, "CANCELLED")
    assert job(launcher, id_).reason == "CANCELLED"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gres=gpu:9"], ["Requested node configuration is not available", "ask for less"]),
        (["--gres=tpu:1"], ["Invalid generic resource", "sinfo"]),
        (["--partition=nowhere"], ["Invalid partition name", "sinfo -s"]),
        (["--time=long"], ["Invalid --time", "8:00:00"]),
    ],
)
def test_refused_job_says_why_and_what_to_do(
    launcher: SlurmLauncher, script: Callable[..., Path], options: list[str], words: list[str]
) -> None:
    with pytest.raises(SubmissionError) as caught:
        launcher.submit(script("true"), arguments=options)
    assert all(word in str(caught.value) for word in words)
    assert launcher.jobs([NAME]) == []


def test_script_that_is_not_there_is_refused(launcher: SlurmLauncher, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"nowhere\.slurm"):
        launcher.submit(tmp_path / "nowhere.slurm")


def test_settings_of_a_job_around_it_are_not_the_new_jobs(
    launcher: SlurmLauncher,
    slurm: SlurmCluster,
    script: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SLURM_JOB_NAME": "salloc"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {
        "SQUEUE_STATES": "SUSPENDED",
        "SQUEUE_FORMAT": "%i",
        "SLURM_TIME_FORMAT": "relative",
    }.items():
        monkeypatch.setenv(name, value)
    id_ = launcher.submit(script(f"env; {WAITS}"))
    log = tmp_path / f"{id_}.log"
    wait_until(lambda: log.exists() and "SLURM_JOB_ID" in log.read_text())
    environment = log.read_text().splitlines()
    assert f"SLURM_JOB_ID={id_}" in environment
    assert not [line for line in environment if line.startswith(("SLURM_RESTART_COUNT", "SLURM_TIME_FORMAT"))]
    assert job(launcher, id_).state is JobState.RUNNING


def test_slurmctld_that_restarts_is_waited_for(slurm: SlurmCluster, script: Callable[..., Path]) -> None:
    slurm.stop_controller()
    with ThreadPoolExecutor() as pool:
        submitted = pool.submit(SlurmLauncher().submit, script(WAITS))
        time.sleep(3)
        slurm.start_controller()
    assert slurm.job(submitted.result())["JobName"] == NAME


def test_slurmctld_that_is_away_is_named(
    launcher: SlurmLauncher, slurm: SlurmCluster, script: Callable[..., Path]
) -> None:
    slurm.stop_controller()
    try:
        with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
            launcher.submit(script(WAITS))
        with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
            launcher.jobs([NAME])
    finally:
        slurm.start_controller()


def test_machine_without_slurm_is_told_apart(
    launcher: SlurmLauncher, script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="sbatch is not on PATH here"):
        launcher.submit(script("true"))

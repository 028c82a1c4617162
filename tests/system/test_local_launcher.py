"""The launcher without SLURM: real scripts, found again, told apart, ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from amela_client.cluster.jobs import JobState
from amela_client.cluster.local_jobs import LocalLauncher
from amela_client.errors import LaunchError, SubmissionError

from ..conftest import wait_until

NAME = "amela-vad-0a1b2c"
# As server.slurm does it: the exit code is left behind, SIGTERM passed on.
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=ignored
folder=$(dirname "$0")
mkdir -p "$folder/exits"
trap 'echo "$?" >"$folder/exits/$AMELA_JOB"' EXIT
trap 'kill -TERM "$child"' TERM
{body}
"""
SLEEPS = "sleep 300 &\nchild=$!\necho ready\nwait $child || wait $child\nexit 0"


@pytest.fixture
def launches(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "launches"
    launcher = LocalLauncher(tmp_path / "launches")
    jobs = launcher.jobs([folder.name for folder in (tmp_path / "launches").glob("*")])
    launcher.kill([job.id for job in jobs if job.node == os.uname().nodename])


@pytest.fixture
def launcher(launches: Path) -> LocalLauncher:
    return LocalLauncher(launches)


@pytest.fixture
def script(launches: Path) -> Callable[..., Path]:
    def write(body: str, name: str = "vad-0a1b2c") -> Path:
        folder = launches / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "server.slurm"
        path.write_text(SCRIPT.format(body=body))
        return path

    return write


def log_of(script: Path, id_: str) -> str:
    path = script.parent / "logs" / f"{id_}.log"
    return path.read_text() if path.exists() else ""


def record_of(script: Path, id_: str) -> Path:
    return script.parent / "processes" / id_


def ready(launcher: LocalLauncher, script: Path) -> str:
    id_ = launcher.submit(script)
    wait_until(lambda: "ready" in log_of(script, id_))
    return id_


def pid_of(script: Path, id_: str) -> int:
    return int(json.loads(record_of(script, id_).read_text())["pid"])


def test_job_runs_detached_and_another_process_finds_it(
    launcher: LocalLauncher, launches: Path, script: Callable[..., Path]
) -> None:
    path = script(SLEEPS)
    submit = (
        "import sys; from pathlib import Path; from amela_client.cluster.local_jobs import LocalLauncher;"
        "print(LocalLauncher(Path(sys.argv[1])).submit(Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", submit, launches, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (job,) = launcher.jobs([NAME])
    assert (job.id, job.name, job.state) == (done.stdout.strip(), NAME, JobState.RUNNING)
    assert (job.node, job.ends, job.exit_code) == (os.uname().nodename, None, None)
    assert os.getsid(pid_of(path, job.id)) == pid_of(path, job.id)


def test_jobs_of_a_launch_have_ids_and_logs_of_their_own(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script(f'echo "I am $AMELA_JOB"; echo aloud >&2; {SLEEPS}')
    ids = [ready(launcher, path) for _ in range(3)]
    assert ids == ["vad-0a1b2c-1", "vad-0a1b2c-2", "vad-0a1b2c-3"]
    assert [job.id for job in launcher.jobs([NAME])] == ids
    assert log_of(path, ids[1]) == "I am vad-0a1b2c-2\naloud\nready\n"


def test_only_jobs_of_the_names_asked_for_are_listed(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    first, second = ready(launcher, script(SLEEPS)), ready(launcher, script(SLEEPS, "asr-ffffff"))
    assert [job.id for job in launcher.jobs([NAME])] == [first]
    assert [job.id for job in launcher.jobs(["amela-asr-ffffff", NAME])] == [second, first]
    assert launcher.jobs(["amela-asr-000000"]) == []
    assert launcher.jobs([]) == []


@pytest.mark.parametrize(("code", "reason"), [(0, "COMPLETED"), (3, "FAILED")])
def test_job_that_ended_tells_how(
    launcher: LocalLauncher, script: Callable[..., Path], code: int, reason: str
) -> None:
    id_ = launcher.submit(script(f"exit {code}"))
    wait_until(lambda: not launcher.jobs([NAME]))
    ended = launcher.past([id_, "vad-0a1b2c-9", "vad-999999-1", "123"])
    assert ended.keys() == {id_}
    assert (ended[id_].state, ended[id_].reason, ended[id_].exit_code) == (JobState.ENDED, reason, code)


def test_job_that_runs_is_not_past(launcher: LocalLauncher, script: Callable[..., Path]) -> None:
    id_ = ready(launcher, script(SLEEPS))
    assert launcher.past([id_]) == {}


def test_cancelled_job_gets_sigterm_by_its_script_alone(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script(
        "(trap 'echo told; exit' TERM; echo ready; while sleep 0.1; do :; done) &\n"
        "child=$!\nwait; wait; exit 0"
    )
    id_, other = ready(launcher, path), ready(launcher, path)
    launcher.cancel([id_, "vad-0a1b2c-9"])
    wait_until(lambda: [job.id for job in launcher.jobs([NAME])] == [other])
    assert log_of(path, id_).count("told") == 1
    assert launcher.past([id_])[id_].exit_code == 0


def test_killed_job_ends_with_all_its_processes(launcher: LocalLauncher, script: Callable[..., Path]) -> None:
    path = script("trap '' TERM\nsleep 301 &\nchild=$!\necho ready $child\nwait")
    id_ = ready(launcher, path)
    launcher.cancel([id_])
    launcher.kill([id_])
    wait_until(lambda: not launcher.jobs([NAME]))
    child = int(log_of(path, id_).split()[1])
    wait_until(
        lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()
    )
    # Nobody could write down an exit code.
    assert launcher.past([id_]) == {}


def test_servers_that_outlive_their_script_are_seen_and_ended(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script(SLEEPS)
    id_ = ready(launcher, path)
    os.kill(pid_of(path, id_), signal.SIGKILL)
    wait_until(lambda: [job.state for job in launcher.jobs([NAME])] == [JobState.ENDING])
    launcher.cancel([id_])
    wait_until(lambda: not launcher.jobs([NAME]))


def test_recycled_pid_is_never_taken_for_the_job(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script("exit 0")
    id_ = launcher.submit(path)
    wait_until(lambda: not launcher.jobs([NAME]))
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        record = json.loads(record_of(path, id_).read_text())
        record_of(path, id_).write_text(json.dumps({**record, "pid": stranger.pid}))
        assert launcher.jobs([NAME]) == []
        launcher.cancel([id_])
        launcher.kill([id_])
        assert launcher.past([id_])[id_].exit_code == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def elsewhere(path: Path, id_: str) -> None:
    record = json.loads(record_of(path, id_).read_text())
    record_of(path, id_).write_text(json.dumps({**record, "host": "login2"}))


def test_job_of_another_machine_is_listed_as_unseen_until_it_left_an_exit_code(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script("exit 3")
    id_ = launcher.submit(path)
    wait_until(lambda: not launcher.jobs([NAME]))
    elsewhere(path, id_)
    assert launcher.past([id_])[id_].exit_code == 3
    (path.parent / "exits" / id_).unlink()
    (job,) = launcher.jobs([NAME])
    assert (job.state, job.node) == (JobState.RUNNING, "login2")
    assert "login2, where this machine cannot see" in job.reason


def test_job_of_another_machine_is_not_ended_from_here_but_those_of_this_one_are(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script(SLEEPS)
    there, here = ready(launcher, path), ready(launcher, path)
    kept = record_of(path, there).read_bytes()
    elsewhere(path, there)
    with pytest.raises(LaunchError, match=f"{there} on login2"):
        launcher.cancel([there, here])
    wait_until(lambda: [job.id for job in launcher.jobs([NAME])] == [there])
    assert Path(f"/proc/{pid_of(path, there)}").exists()
    record_of(path, there).write_bytes(kept)


def test_job_that_is_just_being_started_is_passed_over(
    launcher: LocalLauncher, script: Callable[..., Path]
) -> None:
    path = script(SLEEPS)
    id_ = ready(launcher, path)
    (path.parent / "processes" / "vad-0a1b2c-2").touch()
    assert [job.id for job in launcher.jobs([NAME])] == [id_]
    assert launcher.submit(path) == "vad-0a1b2c-3"


def test_slurms_job_around_it_is_not_the_scripts(
    launcher: LocalLauncher, script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    path = script("env; echo ready")
    id_ = ready(launcher, path)
    environment = log_of(path, id_).splitlines()
    assert "CUDA_VISIBLE_DEVICES=3" in environment
    assert not [line for line in environment if line.startswith("SLURM_")]


def test_options_of_sbatch_are_refused(launcher: LocalLauncher, script: Callable[..., Path]) -> None:
    with pytest.raises(SubmissionError, match="without SLURM there is no --array=0-3"):
        launcher.submit(script(SLEEPS), arguments=["--array=0-3"])
    assert launcher.jobs([NAME]) == []


def test_machine_without_bash_is_told(
    launcher: LocalLauncher, script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SubmissionError, match="bash is not on PATH"):
        launcher.submit(script(SLEEPS))


def test_folder_that_cannot_be_written_is_named(launcher: LocalLauncher, script: Callable[..., Path]) -> None:
    path = script(SLEEPS)
    (path.parent / "logs").write_text("no folder")
    with pytest.raises(SubmissionError, match="logs"):
        launcher.submit(path)
    assert launcher.jobs([NAME]) == []

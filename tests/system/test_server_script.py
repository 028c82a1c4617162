"""slurm/server.slurm with a real server, under a real SLURM and without."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..conftest import NOBODY, program, wait_until
from .slurm_cluster import SlurmCluster

SCRIPT = Path(__file__).parents[2] / "slurm" / "server.slurm"
SERVER = ("--workers", "1", "--host", "127.0.0.1", "--metrics-port", "0")


def registrations(registry: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(registry.glob("*.json"))]


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def lives(group: int) -> bool:
    """Say whether any process is left of a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def stand_in(folder: Path, name: str, body: str) -> str:
    """Put a program of that name before all others; answer the PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n# A stand-in of the tests for {name}.\n{body}\n")
    path.chmod(0o755)
    return f"{folder}:{Path(program('amela-vad')).parent}:{os.environ['PATH']}"


@dataclass
class Service:
    """What the script is told: a launch's folder, a registry, a stage."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, audio: Path) -> "Service":
        launch = folder / "launches" / "vad-0a1b2c"
        for name in ("jobs", "exits", "logs"):
            (launch / name).mkdir(parents=True)
        variables = {
            "AMELA_SITE": "",
            "AMELA_STAGE": "vad",
            "AMELA_REGISTRY": str(folder / "registry"),
            "AMELA_AUDIO_ROOT": str(audio),
            "AMELA_LAUNCH_FOLDER": str(launch),
            "TMPDIR": str(folder),
        }
        return cls(launch, variables)

    @property
    def registry(self) -> Path:
        return Path(self.variables["AMELA_REGISTRY"])

    def log(self, job: str) -> str:
        path = self.folder / "logs" / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def exit(self, job: str) -> str:
        path = self.folder / "exits" / job
        return path.read_text().rstrip("\n") if path.exists() else ""

    def wait_for_servers(self, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(registrations(self.registry)) == count, timeout=60)
        return registrations(self.registry)


@pytest.fixture
def service(tmp_path: Path, examples: Path) -> Service:
    return Service.make(tmp_path, examples)


# Without SLURM.


@dataclass
class Local:
    """The script as a process of this machine."""

    service: Service
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, *arguments: str, user: int | None = None, **variables: str) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        path = f"{Path(program('amela-vad')).parent}:{os.environ['PATH']}"
        with (self.service.folder / "logs" / "local.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", SCRIPT, *arguments],
                env={**environment, "PATH": path, **self.service.variables, **variables},
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                user=user,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, user: int | None = None, **variables: str) -> int:
        return self.start(*arguments, user=user, **variables).wait(60)


@pytest.fixture
def local(service: Service) -> Iterator[Local]:
    local = Local(service)
    yield local
    for process in local.processes:
        # Servers may outlive their script.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_without_slurm_it_serves_until_it_is_told_to_end(service: Service, local: Local) -> None:
    process = local.start(*SERVER, AMELA_JOB="vad-0a1b2c-1")
    (registration,) = service.wait_for_servers(1)
    assert registration["launch"] == "vad-0a1b2c/vad-0a1b2c-1"
    assert "slurm" not in registration
    process.terminate()
    assert process.wait(30) == 0
    assert registrations(service.registry) == []
    assert service.exit("vad-0a1b2c-1") == "0 "
    assert service.log("local").count('"draining"') == 1


def test_without_slurm_a_server_runs_on_each_gpu(service: Service, local: Local) -> None:
    process = local.start(*SERVER, CUDA_VISIBLE_DEVICES="3,5")
    found = service.wait_for_servers(2)
    assert {environment_of(each["pid"])["CUDA_VISIBLE_DEVICES"] for each in found} == {"3", "5"}
    process.terminate()
    assert process.wait(30) == 0
    assert registrations(service.registry) == []


@pytest.fixture
def two_gpus(tmp_path: Path) -> str:
    """Give a PATH whose stand-in for nvidia-smi lists a GPU, and another that MIG has cut in two."""
    listing = [
        f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-{tmp_path.name})",
        f"GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-{tmp_path.name}-cut)",
        f"  MIG 3g.20gb     Device  0: (UUID: MIG-{tmp_path.name}-0)",
        f"  MIG 3g.20gb     Device  1: (UUID: MIG-{tmp_path.name}-1)",
    ]
    (tmp_path / "gpus").write_text("\n".join(listing))
    body = f'[ "$1" = --list-gpus ] && cat {tmp_path}/gpus || echo 40960'
    return stand_in(tmp_path / "programs", "nvidia-smi", body)


def test_without_slurm_servers_take_gpus_that_no_other_has(
    service: Service, local: Local, tmp_path: Path, two_gpus: str
) -> None:
    devices = [f"GPU-{tmp_path.name}", f"MIG-{tmp_path.name}-0", f"MIG-{tmp_path.name}-1"]
    first = local.start(*SERVER, PATH=two_gpus, AMELA_GPUS="1")
    service.wait_for_servers(1)
    second = local.start(*SERVER, PATH=two_gpus, AMELA_GPUS="2")
    found = service.wait_for_servers(3)
    used = [environment_of(each["pid"])["CUDA_VISIBLE_DEVICES"] for each in found]
    assert sorted(used) == devices
    assert local.run(*SERVER, PATH=two_gpus, AMELA_GPUS="1") == 2
    assert "1 GPU(s) are asked for, and of 3 on " in service.log("local")
    assert "0 are free: lower --count, share them with --per-gpu, or do without" in service.log("local")
    first.terminate()
    assert first.wait(30) == 0
    third = local.start(*SERVER, PATH=two_gpus, AMELA_GPUS="1")
    assert sorted(each["pid"] for each in service.wait_for_servers(3)) != sorted(
        each["pid"] for each in found
    )
    assert [second.poll(), third.poll()] == [None, None]


def test_gpus_are_held_until_the_last_server_has_ended(
    service: Service, local: Local, tmp_path: Path, two_gpus: str
) -> None:
    script = local.start(*SERVER, PATH=two_gpus, AMELA_GPUS="3")
    found = service.wait_for_servers(3)
    script.kill()
    script.wait()
    assert local.run(*SERVER, PATH=two_gpus, AMELA_GPUS="1") == 2
    for each in found:
        os.kill(each["pid"], signal.SIGTERM)
    wait_until(lambda: not lives(script.pid))
    local.start(*SERVER, PATH=two_gpus, AMELA_GPUS="3")
    service.wait_for_servers(3)


@pytest.mark.parametrize(("visible", "there"), [("", 0), ("7", 1)])
def test_gpus_that_the_user_hides_are_not_taken(
    service: Service, local: Local, two_gpus: str, visible: str, there: int
) -> None:
    assert local.run(*SERVER, PATH=two_gpus, AMELA_GPUS="2", CUDA_VISIBLE_DEVICES=visible) == 2
    assert f"2 GPU(s) are asked for, and of {there} on " in service.log("local")


def test_without_a_launch_folder_it_serves_all_the_same(service: Service, local: Local) -> None:
    process = local.start(*SERVER, AMELA_LAUNCH_FOLDER="")
    (registration,) = service.wait_for_servers(1)
    assert "launch" not in registration
    process.terminate()
    assert process.wait(30) == 0


def test_memory_of_the_smallest_gpu_is_shared_out(service: Service, local: Local, tmp_path: Path) -> None:
    path = stand_in(tmp_path / "programs", "nvidia-smi", "echo 40960; echo 24576")
    process = local.start(*SERVER, PATH=path, AMELA_PER_GPU="2", CUDA_VISIBLE_DEVICES="0")
    for each in service.wait_for_servers(2):
        assert environment_of(each["pid"])["AMELA_GPU_MEMORY_MIB"] == "12288"
    process.terminate()
    assert process.wait(30) == 0


def test_settings_come_from_the_site_file(service: Service, local: Local, tmp_path: Path) -> None:
    site = tmp_path / "site.env"
    site.write_text(f"# ours\nAMELA_STAGE=vad\nAMELA_REGISTRY='{tmp_path}/ours'\n")
    service.variables = {
        **service.variables,
        "AMELA_SITE": str(site),
        "AMELA_STAGE": "",
        "AMELA_REGISTRY": "",
    }
    process = local.start(*SERVER)
    wait_until(lambda: registrations(tmp_path / "ours"))
    process.terminate()
    assert process.wait(30) == 0


def test_options_of_the_server_are_passed_on_and_its_refusal_is_the_scripts(
    service: Service, local: Local
) -> None:
    assert local.run("--workers", "none") == 2
    assert "amela-vad: workers" in service.log("local").replace("--workers", "workers")
    assert service.exit("local") == "2 amela-vad ended with exit code 2"


def test_one_server_that_fails_takes_the_others_along(service: Service, local: Local) -> None:
    process = local.start(*SERVER, CUDA_VISIBLE_DEVICES="0,1")
    first, second = service.wait_for_servers(2)
    os.kill(first["pid"], signal.SIGKILL)
    assert process.wait(30) == 128 + 9
    assert not Path(f"/proc/{second['pid']}").exists()
    assert service.exit("local") == "137 amela-vad ended with exit code 137"


def test_launch_that_was_taken_down_starts_nothing(service: Service, local: Local) -> None:
    (service.folder / "stopped").touch()
    assert local.run(*SERVER) == 0
    assert "told to end" in service.log("local")
    assert not service.registry.exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AMELA_STAGE": "tts"}, "AMELA_STAGE is 'tts': set it to vad, asr or sts"),
        ({"AMELA_STAGE": ""}, "AMELA_STAGE is ''"),
        ({"AMELA_IMAGE": "/nowhere/vad.sif"}, "the image /nowhere/vad.sif cannot be read"),
        ({"AMELA_IMAGES": "/nowhere"}, "the image /nowhere/vad.sif cannot be read"),
        (
            {"AMELA_IMAGE": str(SCRIPT), "PATH": "/usr/bin:/bin"},
            "neither apptainer nor singularity is on PATH",
        ),
        ({"PATH": "/usr/bin:/bin"}, "amela-vad is not on PATH"),
        ({"AMELA_REGISTRY": f"{SCRIPT}/registry"}, f"the registry {SCRIPT}/registry cannot be made"),
        ({"AMELA_AUDIO_ROOT": "/nowhere:/"}, "the audio folder /nowhere is not there"),
        ({"AMELA_MODEL": "/nowhere/m.nemo"}, "the model /nowhere/m.nemo cannot be read"),
        ({"AMELA_MODULES": "cuda/12 apptainer"}, "'module load cuda/12' failed"),
        ({"TMPDIR": "/nowhere/tmp"}, "/nowhere/tmp is no folder on"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    service: Service, local: Local, variables: dict[str, str], words: str
) -> None:
    assert local.run(*SERVER, **variables) == 2
    assert words in service.log("local")
    assert words in service.exit("local")
    assert registrations(service.registry) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's identity")
def test_registry_of_somebody_else_is_refused(service: Service, local: Local, users_folder: Path) -> None:
    os.seteuid(0)
    registry = users_folder / "registry"
    registry.mkdir(mode=0o755)
    (service.folder / "logs" / "local.log").touch()
    code = local.run(
        *SERVER, user=NOBODY, AMELA_REGISTRY=str(registry), AMELA_LAUNCH_FOLDER="", TMPDIR="/tmp"
    )
    assert code == 2
    assert f"the registry {registry} cannot be written" in service.log("local")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_full_temporary_folder_is_told_with_its_size(service: Service, local: Local, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        assert local.run(*SERVER, TMPDIR=str(small)) == 2
    finally:
        subprocess.run(["umount", small], check=True)
    assert f"{small} on {os.uname().nodename} has 8 MiB free" in service.exit("local")


# Under SLURM.


@dataclass
class Jobs:
    """The script as a job."""

    service: Service
    slurm: SlurmCluster
    script: Path

    def submit(self, options: Sequence[str] = (), *arguments: str, **variables: str) -> str:
        done = self.slurm.run(
            *("sbatch", "--parsable", *options, self.script, *(arguments or SERVER)),
            **self.service.variables,
            **variables,
        )
        return done.stdout.strip()


@pytest.fixture
def jobs(service: Service, slurm: SlurmCluster) -> Jobs:
    # With options as a launch's own script has them, so that successors have them too.
    first, rest = SCRIPT.read_text().split("\n", 1)
    options = f"#SBATCH --output={service.folder}/logs/%j.log\n#SBATCH --time=10\n"
    script = service.folder / "server.slurm"
    script.write_text(f"{first}\n{rest.replace('#SBATCH --output=%x-%j.log', options)}")
    return Jobs(service, slurm, script)


def test_job_registers_with_its_allocation_and_launch(jobs: Jobs, service: Service) -> None:
    job = jobs.submit()
    (registration,) = service.wait_for_servers(1)
    fields = jobs.slurm.job(job)
    assert registration["slurm"]["jobId"] == job
    assert registration["slurm"]["node"] == fields["NodeList"]
    assert registration["launch"] == f"vad-0a1b2c/{job}"


def test_end_of_the_allocation_is_filled_in(jobs: Jobs, service: Service) -> None:
    job = jobs.submit()
    (registration,) = service.wait_for_servers(1)
    shown = jobs.slurm.run("scontrol", "-o", "show", "job", job, SLURM_TIME_FORMAT="%s").stdout
    end = environment_of(registration["pid"])["SLURM_JOB_END_TIME"]
    assert f" EndTime={end} " in shown


# What ends a job: our own signal, and SLURM's own end, which itself tells every process of the job.
ENDS = pytest.mark.parametrize(
    ("end", "state"),
    [(["scancel", "--batch", "--signal=TERM"], "COMPLETED"), (["scancel"], "CANCELLED")],
    ids=["by-signal", "by-scancel"],
)


@ENDS
def test_job_drains_when_it_is_told_to_end(jobs: Jobs, service: Service, end: list[str], state: str) -> None:
    job = jobs.submit()
    (registration,) = service.wait_for_servers(1)
    jobs.slurm.run(*end, job)
    jobs.slurm.wait_for(job, state)
    assert registrations(service.registry) == []
    assert not Path(f"/proc/{registration['pid']}").exists()
    assert service.exit(job) == "0 "


@ENDS
def test_server_gets_one_sigterm_where_a_second_would_end_it_at_once(
    jobs: Jobs, tmp_path: Path, end: list[str], state: str
) -> None:
    heard = tmp_path / "heard"
    path = stand_in(
        tmp_path / "programs",
        "amela-vad",
        f"trap 'echo TERM >>{heard}' TERM\n>{heard}\nuntil [ -s {heard} ]; do sleep 0.1; done\nsleep 2",
    )
    job = jobs.submit(PATH=path)
    wait_until(heard.exists)
    jobs.slurm.run(*end, job)
    jobs.slurm.wait_for(job, state)
    assert heard.read_text() == "TERM\n"


def test_each_gpu_of_an_allocation_gets_a_server(jobs: Jobs, service: Service) -> None:
    jobs.submit(["--gres=gpu:2"])
    found = service.wait_for_servers(2)
    assert {environment_of(each["pid"])["CUDA_VISIBLE_DEVICES"] for each in found} == {"0", "1"}


def test_several_servers_share_a_gpu(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(["--gres=gpu:1"], AMELA_PER_GPU="2")
    found = service.wait_for_servers(2)
    assert [environment_of(each["pid"])["CUDA_VISIBLE_DEVICES"] for each in found] == ["0", "0"]
    jobs.slurm.run("scancel", "--batch", "--signal=TERM", job)
    jobs.slurm.wait_for(job, "COMPLETED")
    assert registrations(service.registry) == []


def test_exit_code_of_a_server_is_the_jobs(jobs: Jobs, service: Service) -> None:
    job = jobs.submit([], "--workers", "none")
    assert jobs.slurm.wait_for(job, "FAILED")["ExitCode"] == "2:0"
    assert service.exit(job) == "2 amela-vad ended with exit code 2"


def test_one_server_of_a_job_that_fails_takes_the_others_along(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(["--gres=gpu:2"])
    first, second = service.wait_for_servers(2)
    os.kill(first["pid"], signal.SIGKILL)
    assert jobs.slurm.wait_for(job, "FAILED")["ExitCode"] == "137:0"
    assert not Path(f"/proc/{second['pid']}").exists()
    assert [each["id"] for each in registrations(service.registry)] == [first["id"]]


def test_job_that_lost_its_engine_goes_back_to_the_queue_three_times(
    jobs: Jobs, service: Service, tmp_path: Path
) -> None:
    path = stand_in(tmp_path / "programs", "amela-vad", f"echo run >>{tmp_path}/runs\nexit 1")
    job = jobs.submit(PATH=path)
    runs = tmp_path / "runs"
    for run in range(1, 4):
        wait_until(lambda run=run: runs.exists() and len(runs.read_text().split()) == run)
        jobs.slurm.hasten(job)
    fields = jobs.slurm.wait_for(job, "FAILED")
    assert (fields["Restarts"], fields["ExitCode"]) == ("3", "1:0")
    assert len(runs.read_text().split()) == 4
    assert service.log(job).count("goes back to the queue") == 3
    assert service.exit(job) == "1 amela-vad ended with exit code 1"


def test_job_whose_engine_is_lost_while_it_is_told_to_end_does_not_come_back(
    jobs: Jobs, service: Service, tmp_path: Path
) -> None:
    body = f"trap 'exit 1' TERM\ntouch {tmp_path}/ready\nwhile :; do sleep 0.1; done"
    job = jobs.submit(PATH=stand_in(tmp_path / "programs", "amela-vad", body))
    wait_until((tmp_path / "ready").exists)
    jobs.slurm.run("scancel", "--batch", "--signal=TERM", job)
    assert jobs.slurm.wait_for(job, "FAILED", "PENDING")["JobState"] == "FAILED"
    assert service.exit(job) == "1 amela-vad ended with exit code 1"


def test_requeued_job_registers_again_with_its_restarts(jobs: Jobs, service: Service) -> None:
    job = jobs.submit()
    (before,) = service.wait_for_servers(1)
    jobs.slurm.run("scontrol", "requeue", job)
    jobs.slurm.hasten(job)
    assert registrations(service.registry) == []
    (after,) = service.wait_for_servers(1)
    assert after["id"] != before["id"]
    assert (after["slurm"]["jobId"], after["slurm"]["restartCount"]) == (job, 1)
    assert service.exit(job) == ""


def test_preempted_job_drains_and_comes_back(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(["--gres=gpu:2", "--nodelist=n1"])
    service.wait_for_servers(2)
    urgent = jobs.slurm.submit("sleep 2", "--partition=urgent", "--gres=gpu:2", "--nodelist=n1")
    jobs.slurm.wait_for(urgent, "RUNNING")
    assert registrations(service.registry) == []
    assert service.log(job).count('"draining"') == 2
    jobs.slurm.hasten(job)
    assert [each["slurm"]["restartCount"] for each in service.wait_for_servers(2)] == [1, 1]


def test_job_of_a_launch_that_was_taken_down_ends_well_without_a_server(jobs: Jobs, service: Service) -> None:
    (service.folder / "stopped").touch()
    job = jobs.submit()
    jobs.slurm.wait_for(job, "COMPLETED")
    assert "told to end" in service.log(job)
    assert not service.registry.exists()


def successors(service: Service, job: str) -> list[str]:
    return [
        path.name
        for path in (service.folder / "jobs").iterdir()
        if path.name.isdecimal() and path.name != job
    ]


def test_renewed_job_has_one_successor_that_begins_before_its_end_even_after_a_requeue(
    jobs: Jobs, service: Service
) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    service.wait_for_servers(1)
    (successor,) = successors(service, job)
    assert (service.folder / "jobs" / successor).read_text().strip() == job
    first = jobs.slurm.job(successor)
    assert (first["JobState"], first["Reason"], first["JobName"]) == ("PENDING", "BeginTime", "amela-server")
    assert jobs.slurm.job(job)["StartTime"] < first["StartTime"] < jobs.slurm.job(job)["EndTime"]

    jobs.slurm.run("scontrol", "requeue", job)
    jobs.slurm.hasten(job)
    service.wait_for_servers(1)
    assert successors(service, job) == [successor]
    later = jobs.slurm.job(successor)
    assert later["JobState"] == "PENDING"
    assert first["StartTime"] < later["StartTime"] < jobs.slurm.job(job)["EndTime"]
    queue = jobs.slurm.run("squeue", "--noheader", "--format=%A").stdout.split()
    assert sorted(queue) == sorted([job, successor])


def test_successor_takes_over_with_a_server_and_a_successor_of_its_own(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    service.wait_for_servers(1)
    (successor,) = successors(service, job)
    jobs.slurm.hasten(successor)
    found = service.wait_for_servers(2)
    assert {each["slurm"]["jobId"] for each in found} == {job, successor}
    assert len(successors(service, job)) == 2


def test_successor_of_a_server_that_was_killed_begins_at_once(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    (registration,) = service.wait_for_servers(1)
    (successor,) = successors(service, job)
    os.kill(registration["pid"], signal.SIGKILL)
    jobs.slurm.wait_for(job, "FAILED")
    jobs.slurm.wait_for(successor, "RUNNING")
    assert f"the successor {successor} begins now" in service.log(job)
    assert service.exit(job) == "137 amela-vad ended with exit code 137"


def test_servers_that_all_end_early_are_not_followed_for_ever(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    (registration,) = service.wait_for_servers(1)
    (successor,) = successors(service, job)
    (service.folder / "jobs" / f"{job}.hastened").write_text("3\n")
    os.kill(registration["pid"], signal.SIGKILL)
    jobs.slurm.wait_for(job, "FAILED")
    assert jobs.slurm.job(successor)["JobState"] == "PENDING"
    assert "begins now" not in service.log(job)


def test_successor_of_a_job_that_was_told_to_end_is_not_hastened(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    service.wait_for_servers(1)
    (successor,) = successors(service, job)
    jobs.slurm.run("scancel", "--batch", "--signal=TERM", job)
    jobs.slurm.wait_for(job, "COMPLETED")
    assert jobs.slurm.job(successor)["JobState"] == "PENDING"
    assert "begins now" not in service.log(job)


def test_successor_of_a_server_that_refuses_its_set_up_is_not_hastened(jobs: Jobs, service: Service) -> None:
    job = jobs.submit([], "--workers", "none", AMELA_RENEW="1")
    jobs.slurm.wait_for(job, "FAILED")
    (successor,) = successors(service, job)
    assert jobs.slurm.job(successor)["JobState"] == "PENDING"
    assert "begins now" not in service.log(job)


def test_requeued_job_whose_successor_serves_already_leaves_it_to_that(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    service.wait_for_servers(1)
    (successor,) = successors(service, job)
    jobs.slurm.hasten(successor)
    service.wait_for_servers(2)
    after = successors(service, job)
    jobs.slurm.run("scontrol", "requeue", job)
    jobs.slurm.hasten(job)
    jobs.slurm.wait_for(job, "COMPLETED")
    assert f"the successor {successor} has taken over" in service.log(job)
    assert service.exit(job) == "0 "
    assert successors(service, job) == after
    assert [each["slurm"]["jobId"] for each in service.wait_for_servers(1)] == [successor]


def test_requeued_job_whose_successor_has_ended_leaves_it_to_the_next(jobs: Jobs, service: Service) -> None:
    job = jobs.submit(AMELA_RENEW="1")
    service.wait_for_servers(1)
    (successor,) = successors(service, job)
    jobs.slurm.hasten(successor)
    service.wait_for_servers(2)
    (third,) = set(successors(service, job)) - {successor}
    jobs.slurm.hasten(third)
    service.wait_for_servers(3)
    jobs.slurm.run("scancel", successor)
    service.wait_for_servers(2)
    after = successors(service, job)
    jobs.slurm.run("scontrol", "requeue", job)
    jobs.slurm.hasten(job)
    jobs.slurm.wait_for(job, "COMPLETED")
    assert f"the successor {third} has taken over" in service.log(job)
    assert successors(service, job) == after


def test_job_that_is_not_renewed_has_no_successor(jobs: Jobs, service: Service) -> None:
    job = jobs.submit()
    service.wait_for_servers(1)
    assert successors(service, job) == []

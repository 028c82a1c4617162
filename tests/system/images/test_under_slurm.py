"""Images as steps of SLURM's jobs."""

import json
from pathlib import Path

import psutil
from amela_client import SyncAmelaClient

from ...conftest import wait_until
from ..images_built import APPTAINER, Images
from ..slurm_cluster import SlurmCluster
from .conftest import EXAMPLES, SENTENCE

PATH = f"export PATH={APPTAINER.parent}:$PATH"


def serving(image: Path, folder: Path) -> str:
    """Make a job script that serves, and writes down the step's exit code."""
    binds = f"--bind {EXAMPLES}:{EXAMPLES}:ro --bind {folder}"
    options = f"--registry {folder}/registry --host 127.0.0.1 --audio-root {EXAMPLES} --workers 1"
    return f"{PATH}\nsrun apptainer run {binds} {image} {options}\necho $? >{folder}/code"


def in_job(job: str) -> list[str]:
    """Processes of a job."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_a_step_serves_on_its_gpu_and_drains_when_it_is_told_to(
    slurm: SlurmCluster, images: Images, scratch: Path
) -> None:
    job = slurm.submit(serving(images("vad"), scratch), "--gres=gpu:1")
    wait_until(lambda: list((scratch / "registry").glob("*.json")), timeout=60)
    [path] = (scratch / "registry").glob("*.json")
    registration = json.loads(path.read_text())
    assert registration["slurm"]["jobId"] == job
    environment = psutil.Process(registration["pid"]).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] in {"0", "1"}
    with SyncAmelaClient(registry=scratch / "registry") as client:
        assert client.detect(SENTENCE).segments
    # To every process of the step, which Apptainer and the server are both.
    slurm.run("scancel", "--signal=TERM", job)
    wait_until((scratch / "code").exists, timeout=60)
    assert (scratch / "code").read_text() == "0\n"
    assert not path.exists()
    wait_until(lambda: not in_job(job))


def test_a_cancelled_job_leaves_nothing_running(slurm: SlurmCluster, images: Images, scratch: Path) -> None:
    job = slurm.submit(serving(images("vad"), scratch))
    wait_until(lambda: list((scratch / "registry").glob("*.json")), timeout=60)
    assert any("amela-vad" in command for command in in_job(job))
    slurm.run("scancel", job)
    slurm.wait_for(job, "CANCELLED")
    wait_until(lambda: not in_job(job), timeout=60)


def test_the_servers_exit_code_is_the_steps(slurm: SlurmCluster, images: Images, scratch: Path) -> None:
    script = f"{PATH}\nsrun apptainer run {images('vad')} --audio-root /not/there"
    fields = slurm.wait_for(slurm.submit(script), "FAILED", "COMPLETED")
    assert fields["ExitCode"] == "2:0"

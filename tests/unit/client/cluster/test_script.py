"""What is handed to SLURM, to the letter."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from amela_client.cluster.plan import ServerPlan
from amela_client.cluster.script import MARKER, body_of, server_script, variables_against
from amela_client.cluster.slurm import SlurmLauncher
from amela_client.errors import SetupError

GOLDEN = Path(__file__).parent / "golden"
COMMITTED = Path(__file__).parents[4] / "slurm" / "server.slurm"
LEAST = ServerPlan("vad-0a1b2c", "vad", Path("/registry"), (Path("/data"),))
MOST = ServerPlan(
    name="asr-3f9a2c",
    stage="asr",
    registry=Path("/lab/the registry/Öl"),
    audio_roots=(Path("/data/it's here"), Path("/data/b")),
    image=Path("/images/asr.sif"),
    model="/models/canary qwen",
    engine="salm",
    gpu_memory_mib=16_000,
    options=("--precision", "bf16", "--languages", "en,de"),
    per_gpu=2,
    renew=True,
    binds=("/scratch", "/models:/m:ro"),
    modules=("apptainer/1.4", "cuda"),
    variables=(("TMPDIR", "/scratch/$USER"),),
    partition="gpu",
    account="lab",
    qos="normal",
    time="8:00:00",
    gres="gpu:a100:2",
    cpus=6,
    memory="32G",
    sbatch=("--constraint", "a100|h200", '--comment=say "hi" # now'),
)
SHORT = replace(LEAST, time="5:00", programs=Path("/venv/bin"))


def head(script: str) -> str:
    head, _, body = script.partition(body_of("server.slurm"))
    assert body == ""
    return head


@pytest.mark.parametrize(("name", "plan"), [("least", LEAST), ("most", MOST), ("short", SHORT)])
def test_the_script_is_as_it_was_looked_at(name: str, plan: ServerPlan) -> None:
    assert head(server_script(plan)) == (GOLDEN / f"{name}.head").read_text()


def test_what_the_script_does_is_what_the_committed_one_does() -> None:
    committed = COMMITTED.read_text()
    assert committed.endswith(f"{MARKER}\n{body_of('server.slurm')}")
    assert server_script(LEAST).endswith(body_of("server.slurm"))


def test_bash_reads_every_value_as_it_was_meant() -> None:
    script = head(server_script(MOST)) + 'printf "%s\\n" "$AMELA_REGISTRY" "$AMELA_AUDIO_ROOT" "$TMPDIR" "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", "--more"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "/lab/the registry/Öl",
        "/data/it's here:/data/b",
        "/scratch/$USER",
        *MOST.options,
        "--more",
    ]


def test_a_variable_of_the_submitting_shell_is_no_option_of_the_server() -> None:
    script = head(server_script(LEAST)) + 'printf "%s" "${AMELA_MODEL-not set}"'
    done = subprocess.run(
        ["bash", "-c", script], env={"AMELA_MODEL": "mine"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "not set"


SHELL = {
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_PARTITION": "short",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_CONSTRAINT": "b",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_CLUSTERS": "other",
    "SBATCH_WCKEY": "key",
}


@pytest.mark.parametrize(
    ("plan", "kept"),
    [
        (LEAST, {"SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_CONSTRAINT", "SBATCH_WCKEY"}),
        (SHORT, {"SBATCH_PARTITION", "SBATCH_CONSTRAINT", "SBATCH_WCKEY"}),
        (MOST, {"SBATCH_WCKEY"}),
        (replace(LEAST, sbatch=("-Cb", "-t", "5", "-p=x")), {"SBATCH_WCKEY"}),
    ],
)
def test_what_the_shell_has_for_sbatch_counts_only_where_the_script_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: ServerPlan, kept: set[str]
) -> None:
    script = tmp_path / "server.slurm"
    script.write_text(server_script(plan))
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # A stand-in, whose environment is that of the job.
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\nenv >{tmp_path}/environment\necho 7\n")
    sbatch.chmod(0o755)
    assert SlurmLauncher(patience=0).submit(script) == "7"
    submitted = (tmp_path / "environment").read_text().splitlines()
    assert {line.partition("=")[0] for line in submitted if line.startswith("SBATCH_")} == kept

    # A login shell on the node may have set them again, and a successor is handed in from there.
    done = subprocess.run(
        ["bash", "-c", head(script.read_text()) + "env"], capture_output=True, text=True, check=True
    )
    assert {line.partition("=")[0] for line in done.stdout.splitlines() if line.startswith("SBATCH_")} == kept


def test_a_script_that_is_not_there_or_not_ours_says_nothing_of_the_environment(tmp_path: Path) -> None:
    assert variables_against(tmp_path / "none") == frozenset()
    assert variables_against(COMMITTED) == frozenset()


@pytest.mark.parametrize("character", ["\n", "\r", "\0"])
@pytest.mark.parametrize(
    "plan",
    [
        lambda bad: replace(LEAST, model=f"/models/x{bad}y"),
        lambda bad: replace(LEAST, options=(f"--x{bad}",)),
        lambda bad: replace(LEAST, sbatch=(f"--comment=x{bad}#SBATCH --uid=0",)),
        lambda bad: replace(LEAST, registry=Path(f"/x{bad}y")),
        lambda bad: replace(LEAST, partition=f"gpu{bad}"),
    ],
)
def test_a_value_that_would_end_its_line_is_refused(plan: object, character: str) -> None:
    assert callable(plan)
    with pytest.raises(SetupError, match="cannot be written into a batch script"):
        server_script(plan(character))


@pytest.mark.parametrize("character", ["%", "\\"])
def test_a_registry_whose_name_slurm_would_change_is_refused(character: str) -> None:
    with pytest.raises(SetupError, match="put the registry or the run in a folder without it"):
        server_script(replace(LEAST, registry=Path(f"/lab/a{character}j")))

"""How `services/asr/triton/start` calls Apptainer, which a stand-in here writes down."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TRITON = Path(__file__).parents[3] / "services/asr/triton"
REPOSITORY = TRITON / "model_repository"
FAKE_APPTAINER = """#!{python}
import json, os, sys
with open({record!r}, "w") as record:
    json.dump({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}, record)
"""


@dataclass
class FakeApptainer:
    """A program of that name that starts nothing."""

    path: Path
    record: Path

    @property
    def arguments(self) -> list[str]:
        return list(json.loads(self.record.read_text())["arguments"])

    @property
    def environment(self) -> dict[str, str]:
        return dict(json.loads(self.record.read_text())["environment"])

    @property
    def binds(self) -> list[str]:
        """What comes after each --bind."""
        return [
            after for flag, after in zip(self.arguments, self.arguments[1:], strict=False) if flag == "--bind"
        ]


@pytest.fixture
def apptainer(tmp_path: Path) -> FakeApptainer:
    fake = FakeApptainer(tmp_path / "bin", tmp_path / "record.json")
    fake.path.mkdir()
    program = fake.path / "apptainer"
    program.write_text(FAKE_APPTAINER.format(python=sys.executable, record=str(fake.record)))
    program.chmod(0o755)
    return fake


def start(
    apptainer: FakeApptainer, *arguments: str, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    path = f"{apptainer.path}:{os.environ['PATH']}"
    return subprocess.run(
        [TRITON / "start", *arguments],
        env={"PATH": path, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_container_runs_tritonserver_with_the_repository_and_the_options_given(
    apptainer: FakeApptainer, tmp_path: Path
) -> None:
    image = str(tmp_path / "an image.sif")
    ended = start(apptainer, "container", image, "--grpc-port=8001", AMELA_MODEL="lab/model")

    assert ended.returncode == 0
    before, after = apptainer.arguments[:2], apptainer.arguments[apptainer.arguments.index(image) :]
    assert before == ["exec", "--nv"]
    assert after == [
        image,
        "tritonserver",
        f"--model-repository={REPOSITORY}",
        "--model-control-mode=explicit",
        "--load-model=amela_asr",
        "--grpc-port=8001",
    ]


def test_the_container_sees_the_repository_and_the_model_and_can_write_neither(
    apptainer: FakeApptainer, tmp_path: Path
) -> None:
    (tmp_path / "my models").mkdir()
    (tmp_path / "my models/parakeet.nemo").touch()
    start(apptainer, "container", "triton.sif", cwd=tmp_path, AMELA_MODEL="my models/parakeet.nemo")

    model = tmp_path / "my models/parakeet.nemo"
    assert apptainer.binds == [f"{REPOSITORY}:{REPOSITORY}:ro", f"{model}:{model}:ro"]
    assert apptainer.environment["APPTAINERENV_AMELA_MODEL"] == str(model)


def test_a_link_to_a_model_keeps_the_name_that_says_what_it_is(
    apptainer: FakeApptainer, tmp_path: Path
) -> None:
    (tmp_path / "0123abcd").touch()
    link = tmp_path / "parakeet.nemo"
    link.symlink_to(tmp_path / "0123abcd")
    start(apptainer, "container", "triton.sif", AMELA_MODEL=str(link))

    assert apptainer.binds[1:] == [f"{link}:{link}:ro"]
    assert apptainer.environment["APPTAINERENV_AMELA_MODEL"] == str(link)


def test_a_name_on_a_hub_is_passed_as_it_is(apptainer: FakeApptainer) -> None:
    start(apptainer, "container", "triton.sif", AMELA_MODEL="nvidia/canary-qwen-2.5b")

    assert len(apptainer.binds) == 1
    assert apptainer.environment["APPTAINERENV_AMELA_MODEL"] == "nvidia/canary-qwen-2.5b"


def test_all_settings_of_amela_asr_come_through_and_nothing_else_is_renamed(apptainer: FakeApptainer) -> None:
    settings = {"AMELA_MODEL": "lab/model", "AMELA_PRECISION": "bf16", "AMELA_LANGUAGES": "en,de = all"}
    start(apptainer, "container", "triton.sif", CUDA_VISIBLE_DEVICES="1", **settings)

    passed = {
        name.removeprefix("APPTAINERENV_"): value
        for name, value in apptainer.environment.items()
        if name.startswith("APPTAINERENV_")
    }
    assert passed == settings
    assert apptainer.environment["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    "arguments", [(), ("container",), ("wheel", "folder"), ("docker", "triton.sif"), ("--help", "x")]
)
def test_a_wrong_command_line_is_told_how_it_goes(
    apptainer: FakeApptainer, arguments: tuple[str, ...]
) -> None:
    ended = start(apptainer, *arguments, AMELA_MODEL="lab/model")

    assert ended.returncode == 2
    assert "start container IMAGE" in ended.stderr
    assert not apptainer.record.exists()


def test_without_a_model_nothing_is_started(apptainer: FakeApptainer) -> None:
    ended = start(apptainer, "container", "triton.sif")

    assert ended.returncode == 2
    assert "AMELA_MODEL is not set" in ended.stderr
    assert not apptainer.record.exists()

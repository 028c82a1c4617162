"""The command ``amela-vad`` where it does not come to serving."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def amela_vad(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "amela_vad", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_explains_the_options_of_its_own() -> None:
    result = amela_vad("--help")
    assert result.returncode == 0
    assert "Processes that decode and detect" in " ".join(result.stdout.split())
    assert "Live streams at the same time" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--workers", "0"), "--workers"),
        (("--workers", "many"), "--workers"),
        (("--streams", "-1"), "--streams"),
    ],
)
def test_impossible_options_end_it_with_code_2_and_their_name(
    tmp_path: Path, arguments: tuple[str, ...], option: str
) -> None:
    result = amela_vad("--registry", str(tmp_path), *arguments)
    assert result.returncode == 2
    assert option in result.stderr


def test_a_library_that_cannot_be_loaded_ends_it_with_code_2_and_the_cure(tmp_path: Path) -> None:
    library = tmp_path / "packages/ten_vad/lib/Linux/x64/libten_vad.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    (tmp_path / "packages/ten_vad/__init__.py").touch()
    result = amela_vad("--registry", str(tmp_path / "registry"), PYTHONPATH=str(tmp_path / "packages"))
    assert result.returncode == 2
    assert "libc++1" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "registry").glob("*.json"))

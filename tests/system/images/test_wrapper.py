"""tools/apptainer where there is an Apptainer, where there is none, and for whom."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...conftest import NOBODY
from ..images_built import APPTAINER, Images
from .conftest import apptainer


def test_an_apptainer_on_path_is_used(scratch: Path) -> None:
    real = scratch / "apptainer"
    real.write_text('#!/bin/sh\necho "the real one: $*"\nexit 7\n')
    real.chmod(0o755)
    path = f"{APPTAINER.parent}:{scratch}:{os.environ['PATH']}"
    assert apptainer("run", "x.sif", PATH=path, code=7).stdout == "the real one: run x.sif\n"


def test_an_apptainer_on_path_reads_what_the_wrapper_is_given(scratch: Path) -> None:
    real = scratch / "apptainer"
    real.write_text("#!/bin/sh\ncat\n")
    real.chmod(0o755)
    done = subprocess.run(
        [APPTAINER, "run", "x.sif"],
        env={**os.environ, "PATH": f"{APPTAINER.parent}:{scratch}:{os.environ['PATH']}"},
        input="hello\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "hello\n"


def test_the_wrapper_on_path_is_not_taken_for_apptainer(images: Images) -> None:
    path = f"{APPTAINER.parent}:{os.environ['PATH']}"
    assert apptainer("--version", PATH=path).stdout.startswith("apptainer version ")


def test_first_calls_at_the_same_time_make_one_whole_apptainer(images: Images, scratch: Path) -> None:
    for done in _at_once(3, scratch / "new"):
        assert done.stdout.startswith("apptainer version ")
    assert not (scratch / "new" / "sid.partial").exists()


def test_calls_at_the_same_time_all_see_the_machines_folders(images: Images, scratch: Path) -> None:
    _at_once(1, scratch / "new")
    for _ in range(5):
        for name in ("home", "media", "opt", "srv", "tmp"):
            (scratch / "new" / "sid" / name).rmdir()
        assert [done.stderr for done in _at_once(6, scratch / "new")] == [""] * 6


def _at_once(count: int, home: Path) -> list[subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(count) as threads:
        calls = [threads.submit(apptainer, "--version", AMELA_APPTAINER=str(home)) for _ in range(count)]
    return [call.result() for call in calls]


def test_an_ordinary_user_is_told_what_root_has_to_do_first(images: Images, scratch: Path) -> None:
    os.chown(scratch, NOBODY, NOBODY)
    # As in the other tests, the checkout may be out of their reach.
    for tool in ("apptainer", "debian-root"):
        (scratch / tool).write_bytes((APPTAINER.parent / tool).read_bytes())
        (scratch / tool).chmod(0o755)
    done = subprocess.run(
        [scratch / "apptainer", "--version"],
        env={"PATH": os.environ["PATH"], "AMELA_APPTAINER": str(scratch / "new")},
        user=NOBODY,
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "has to be made by root, once" in done.stderr


def test_the_callers_folder_need_not_be_visible_in_there(images: Images) -> None:
    done = subprocess.run([APPTAINER, "--version"], cwd="/usr/lib", capture_output=True, check=False)
    assert done.returncode == 0

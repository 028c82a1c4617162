import grp
import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from amela_client.cluster.plan import ServerPlan
from amela_client.cluster.preflight import check, prepare_registry
from amela_client.errors import SetupError


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerPlan:
    """Give a plan that nothing is wrong with, for a machine that has SLURM."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "apptainer"):
        (programs / name).touch(0o755)
    monkeypatch.setenv("PATH", str(programs))
    for name in ("images", "audio"):
        (tmp_path / name).mkdir()
    image = tmp_path / "images" / "asr.sif"
    image.touch()
    return ServerPlan("asr-1", "asr", tmp_path, (tmp_path / "audio",), image=image)


@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_a_plan_that_can_work_passes(plan: ServerPlan, launcher: str) -> None:
    check(plan, launcher)


def test_everything_that_is_wrong_is_named_at_once(plan: ServerPlan) -> None:
    bad = replace(
        plan,
        image=Path("/no/asr.sif"),
        model="/no/model",
        audio_roots=(Path("/no/audio"),),
        binds=("/no/bind:/x",),
    )
    with pytest.raises(SetupError) as error:
        check(bad, "slurm")
    found = str(error.value).splitlines()
    assert [next(word for word in line.split() if word.startswith("/no")).strip(",") for line in found] == [
        "/no/asr.sif",
        "/no/model",
        "/no/audio",
        "/no/bind",
    ]
    assert "make image-asr" in found[0]
    assert "amela-asr stage" in found[1]


def test_what_lies_in_a_folder_that_is_closed_is_named_too(
    plan: ServerPlan, users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The others lie where only root can look.
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    closed = users_folder / "closed"
    closed.mkdir(mode=0o000)
    bad = replace(
        plan,
        image=closed / "asr.sif",
        model=f"{closed}/model",
        audio_roots=(closed / "audio",),
        binds=(f"{closed}/bind:/x",),
    )
    with pytest.raises(SetupError) as error:
        check(bad, "slurm")
    found = [line.partition(str(closed)) for line in str(error.value).splitlines()]
    assert [(before, path.split()[0].strip(",")) for before, _, path in found] == [
        ("the image ", "/asr.sif"),
        ("the model ", "/model"),
        ("the audio folder ", "/audio"),
        ("", "/bind"),
    ]


def test_a_name_of_a_model_is_no_path(plan: ServerPlan) -> None:
    check(replace(plan, model="nvidia/canary-qwen-2.5b"), "slurm")


def test_without_sbatch_there_is_the_local_launcher(
    plan: ServerPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="--launcher local"):
        check(plan, "slurm")


def test_without_apptainer_here_an_image_cannot_run_here(
    plan: ServerPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan.registry / "bin" / "apptainer").unlink()
    check(plan, "slurm")
    with pytest.raises(SetupError, match="neither apptainer nor singularity"):
        check(plan, "local")


def test_without_an_image_the_program_must_be_here_or_come_from_a_module(plan: ServerPlan) -> None:
    bare = replace(plan, image=None)
    with pytest.raises(
        SetupError, match=r"amela-asr is not installed here, and there is no image: .* --image"
    ):
        check(bare, "slurm")
    check(replace(bare, modules=("amela",)), "slurm")
    check(replace(bare, programs=plan.registry), "slurm")


def test_what_has_no_end_needs_no_successor(plan: ServerPlan) -> None:
    with pytest.raises(SetupError, match="--renew needs an allocation"):
        check(replace(plan, renew=True), "local")


def test_a_registry_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    prepare_registry(tmp_path / "a" / "registry")
    assert stat.S_IMODE((tmp_path / "a" / "registry").stat().st_mode) == 0o700


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o022, 0o755), (0o077, 0o700)])
def test_folders_above_a_registry_are_made_so_that_only_their_owner_can_write_to_them(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        prepare_registry(tmp_path / "a" / "b" / "registry")
    finally:
        os.umask(before)
    folders = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "registry"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [mode, mode, 0o700]


@pytest.mark.parametrize("mode", [0o775, 0o707, 0o1777])
def test_a_registry_in_a_folder_of_amelas_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".amela"
    prepare_registry(own / "registry")
    own.chmod(mode)
    with pytest.raises(SetupError, match=f"{own} can be written by others, .*; run: chmod go-w {own}"):
        prepare_registry(own / "registry")
    # Of folders of their own, users know whom they share them with.
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    prepare_registry(tmp_path / "shared" / "registry")


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2750, 0o755])
def test_a_registry_that_is_there_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry").chmod(mode)
    prepare_registry(tmp_path / "registry")
    assert stat.S_IMODE((tmp_path / "registry").stat().st_mode) == mode
    assert list((tmp_path / "registry").iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_registry_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(SetupError, match="chmod go-w"):
        prepare_registry(tmp_path)


def test_a_registry_that_cannot_be_made_or_written_is_refused(users_folder: Path) -> None:
    (users_folder / "file").touch()
    (users_folder / "closed").mkdir(mode=0o500)
    for folder in ("file", "file/registry", "closed", "closed/registry"):
        with pytest.raises(
            SetupError, match=rf"the registry {users_folder / folder} cannot be used: .*--registry"
        ):
            prepare_registry(users_folder / folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_registry_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12_345, -1)
    with pytest.raises(SetupError, match="belongs to another user"):
        prepare_registry(tmp_path)


def test_a_group_that_there_is_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no Unix group 'no-such-lab'"):
        prepare_registry(tmp_path / "registry", "no-such-lab")
    assert not (tmp_path / "registry").exists()


def test_a_registry_that_is_used_is_opened_to_a_group_with_what_is_in_it(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o700)
    for name in ("token", "asr-n1.json"):
        (registry / name).touch(0o600)
    group = grp.getgrgid(os.getegid()).gr_name
    prepare_registry(registry, group)
    assert stat.S_IMODE(registry.stat().st_mode) == 0o2750
    for name in ("token", "asr-n1.json"):
        assert stat.S_IMODE((registry / name).stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a group that this user can give")
def test_a_group_that_cannot_reach_the_registry_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    group = next(each for each in grp.getgrall() if each.gr_gid != 0)
    with caplog.at_level(logging.WARNING):
        prepare_registry(closed / "registry", group.gr_name)
    assert f"{closed} is closed to it" in caplog.text
    assert (closed / "registry").stat().st_gid == group.gr_gid

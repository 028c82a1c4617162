import json
import stat
from pathlib import Path

import pytest
from amela_client.cluster.launch import (
    Exit,
    Launch,
    Record,
    all_launches,
    create_launch,
    new_name,
    open_launch,
)
from amela_client.cluster.plan import ServerPlan
from amela_client.errors import LaunchError, SetupError


def plan(registry: Path, name: str = "asr-1", **fields: object) -> ServerPlan:
    return ServerPlan(name, "asr", registry, (Path("/data"),), **fields)  # type: ignore[arg-type]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return create_launch(plan(tmp_path), "#!/bin/bash\n", launcher="slurm", count=2)


def test_what_is_recorded_is_found_again(tmp_path: Path) -> None:
    made = create_launch(
        plan(tmp_path, gres="gpu:2", per_gpu=2, renew=True, gpu_memory_mib=9),
        "#!/bin/bash\necho\n",
        launcher="slurm",
        count=3,
    )
    assert open_launch(tmp_path, "asr-1") == made
    assert (made.count, made.servers_per_job, made.renew, made.gpu_memory_mib) == (3, 4, True, 9)
    assert made.script.read_text() == "#!/bin/bash\necho\n"
    assert made.job_name == "amela-asr-1"


def test_the_folders_of_launches_are_for_their_owner_alone(launch: Launch) -> None:
    for folder in (launch.folder, launch.folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(("gres", "servers"), [("", 6), ("gpu:1", 3), ("gpu:4", 12)])
def test_local_servers_take_the_gpus_asked_for_or_all_that_this_machine_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gres: str, servers: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    made = create_launch(plan(tmp_path, gres=gres, per_gpu=3), "", launcher="local", count=1)
    assert made.servers_per_job == servers


def test_jobs_come_with_whom_they_succeed_and_how_they_ended(launch: Launch) -> None:
    for job in ("17", "18"):
        launch.add_job(job)
    # As the script writes them.
    (launch.folder / "jobs" / "19").write_text("17\n")
    (launch.folder / "jobs" / "17.successor").write_text("19\n")
    (launch.folder / "exits" / "17").write_text("0 \n")
    (launch.folder / "exits" / "18").write_text("2 the image /x is not there\n")
    (launch.folder / "exits" / ".19").write_text("1")
    launch.tell("18")
    assert Record.read(launch) == Record(
        launch,
        {"17": "", "18": "", "19": "17"},
        frozenset({"18"}),
        {"17": Exit(0, ""), "18": Exit(2, "the image /x is not there")},
        False,
    )


def test_a_launch_remembers_that_it_was_stopped(launch: Launch) -> None:
    assert not launch.stopped
    launch.stop()
    assert open_launch(launch.folder.parent.parent, "asr-1").stopped


def test_a_changed_count_is_recorded(launch: Launch, tmp_path: Path) -> None:
    assert launch.with_count(7).count == 7
    assert open_launch(tmp_path, "asr-1").count == 7


def test_the_record_of_a_newer_version_can_be_read(launch: Launch, tmp_path: Path) -> None:
    record = launch.folder / "launch.json"
    record.write_text(json.dumps({**json.loads(record.read_bytes()), "colour": "blue"}))
    assert open_launch(tmp_path, "asr-1") == launch


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"stage": "asr"}'])
def test_a_broken_record_is_named_and_hides_no_other(launch: Launch, tmp_path: Path, content: str) -> None:
    create_launch(plan(tmp_path, "vad-2"), "", launcher="slurm", count=1)
    (launch.folder / "launch.json").write_text(content)
    broken, sound = all_launches(tmp_path)
    assert isinstance(broken, LaunchError)
    assert str(launch.folder / "launch.json") in str(broken)
    assert "scancel --name amela-asr-1" in str(broken)
    assert isinstance(sound, Launch)


@pytest.mark.parametrize("name", ["asr-2", "../launches/asr-1", "", "."])
def test_an_unknown_launch_is_refused_with_those_that_there_are(
    launch: Launch, tmp_path: Path, name: str
) -> None:
    with pytest.raises(LaunchError, match="there are: asr-1"):
        open_launch(tmp_path, name)


def test_a_registry_without_launches_has_none(tmp_path: Path) -> None:
    assert list(all_launches(tmp_path)) == []
    assert list(all_launches(tmp_path / "absent")) == []


def test_a_labmate_sees_no_launches_in_a_registry_that_is_shared(users_folder: Path) -> None:
    launches = users_folder / "launches"
    launches.mkdir(mode=0o000)
    assert list(all_launches(users_folder)) == []


def test_a_launch_of_another_user_is_theirs_alone_to_see(users_folder: Path) -> None:
    registry = users_folder / "registry"
    (registry / "launches").mkdir(parents=True)
    (registry / "launches").chmod(0o000)
    with pytest.raises(
        LaunchError, match=rf"{registry} belongs to {registry.owner()}, who alone can see its"
    ):
        open_launch(registry, "asr-1")
    registry.chmod(0o000)
    users_folder.chmod(0o000)
    with pytest.raises(LaunchError, match="belongs to another user, who alone can see its launches"):
        open_launch(registry, "asr-1")
    users_folder.chmod(0o700)


def test_nothing_is_left_of_a_launch_that_cannot_be_written(users_folder: Path) -> None:
    (users_folder / "launches").mkdir(mode=0o500)
    with pytest.raises(SetupError, match="Permission denied"):
        create_launch(plan(users_folder), "", launcher="slurm", count=1)


def test_a_launch_is_removed_whole_or_but_for_its_logs(tmp_path: Path) -> None:
    for name, keep in (("a", False), ("b", True)):
        launch = create_launch(plan(tmp_path, name), "", launcher="slurm", count=1)
        launch.add_job("1")
        launch.log("1").write_text("line\n")
        launch.remove(keep_logs=keep)
        assert launch.folder.exists() == keep
    assert [path.name for path in (tmp_path / "launches" / "b").iterdir()] == ["logs"]
    assert list(all_launches(tmp_path)) == []


def test_names_differ() -> None:
    names = {new_name("asr") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("asr-") for name in names)

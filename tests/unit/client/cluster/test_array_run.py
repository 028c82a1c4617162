"""Runs of job arrays: what was shared out, what is to be done, how far each task is."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
from amela_client.cluster.array_run import ArrayRun, whole_manifest
from amela_client.errors import ManifestError, SetupError
from amela_client.journal import Journal, RunKey
from amela_client.manifest import Manifest

KEY = RunKey("digest", "transcribe")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    lines = [json.dumps({"audio_filepath": f"/corpus/{number % 2}/{number}.wav"}) for number in range(7)]
    (tmp_path / "data.json").write_text("\n".join(lines))
    return Manifest(tmp_path / "data.json")


@pytest.fixture
def run(manifest: Manifest, tmp_path: Path) -> ArrayRun:
    return ArrayRun.split(manifest, 3, tmp_path / "run")


def test_the_record_says_what_was_shared_out(run: ArrayRun, manifest: Manifest) -> None:
    assert ArrayRun.open(run.folder) == run
    assert (run.entries, run.tasks, run.audio_root) == (7, 3, "/corpus")
    assert (run.manifest, run.digest) == (manifest.path, manifest.digest)
    assert run.share(2) == run.folder / "data_split_02.json"
    assert run.result(2) == run.folder / "results" / "data_split_02.json"


def test_planning_writes_nothing(manifest: Manifest, tmp_path: Path) -> None:
    planned = ArrayRun.planned(manifest, 3, tmp_path / "run")
    assert not planned.folder.exists()
    assert [state.word for state in planned.states()] == ["not started"] * 3
    planned.write(manifest)
    assert ArrayRun.open(planned.folder) == planned


def test_splitting_in_the_same_way_again_finishes_what_was_stopped(run: ArrayRun, manifest: Manifest) -> None:
    content = run.share(1).read_bytes()
    run.share(1).unlink()
    run.share(2).write_text("holds results by now\n")
    assert ArrayRun.split(manifest, 3, run.folder) == run
    assert run.share(1).read_bytes() == content
    assert run.share(2).read_text() == "holds results by now\n"


def test_a_folder_keeps_to_its_tasks_and_its_manifest(run: ArrayRun, manifest: Manifest) -> None:
    with pytest.raises(
        ManifestError, match=r"is a run already: it has 3 tasks, not 4\. To go on .* start over"
    ):
        ArrayRun.split(manifest, 4, run.folder)
    other = manifest.path.with_name("other.json")
    other.write_text('{"audio_filepath": "/a.wav"}')
    with pytest.raises(
        ManifestError, match=r"made of .*data\.json, not of .*other\.json; it has 3 tasks, not 1"
    ):
        ArrayRun.split(Manifest(other), 1, run.folder)
    manifest.path.write_text('{"audio_filepath": "/a.wav"}\n' * 3)
    with pytest.raises(ManifestError, match=r"data\.json has changed since"):
        ArrayRun.split(Manifest(manifest.path), 3, run.folder)


def test_of_two_clients_that_plan_at_once_the_first_to_write_decides(
    manifest: Manifest, tmp_path: Path
) -> None:
    three, two = (ArrayRun.planned(manifest, tasks, tmp_path / "run") for tasks in (3, 2))
    same = ArrayRun.planned(manifest, 3, tmp_path / "run")
    three.write(manifest)
    with pytest.raises(ManifestError, match="it has 3 tasks, not 2"):
        two.write(manifest)
    same.write(manifest)
    assert ArrayRun.open(tmp_path / "run") == three
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "amela-run.json",
        *(f"data_split_0{share}.json" for share in range(3)),
        "results",
    ]


def test_a_record_that_comes_between_the_look_and_the_writing_is_kept(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three, two = (ArrayRun.planned(manifest, tasks, tmp_path / "run") for tasks in (3, 2))
    link = os.link

    def link_late(*arguments: object) -> None:
        monkeypatch.setattr(os, "link", link)
        three.write(manifest)
        link(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link_late)
    with pytest.raises(ManifestError, match="it has 3 tasks, not 2"):
        two.write(manifest)
    assert ArrayRun.open(tmp_path / "run") == three


def test_while_one_client_splits_no_other_does(run: ArrayRun, manifest: Manifest) -> None:
    with run.held(), pytest.raises(SetupError, match="right now: give the command again when that has ended"):
        ArrayRun.split(manifest, 3, run.folder)
    assert ArrayRun.split(manifest, 3, run.folder) == run


def test_a_file_system_without_locks_and_links_will_do(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, code: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", lambda *given: refuse(*given, code=errno.ENOLCK))
    monkeypatch.setattr(os, "link", lambda *given: refuse(*given, code=errno.EPERM))
    run = ArrayRun.split(manifest, 3, tmp_path / "run")
    assert ArrayRun.split(manifest, 3, tmp_path / "run") == run == ArrayRun.open(run.folder)
    assert not list(run.folder.glob("*.tmp")) + list(run.folder.glob(".*.tmp"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"manifest": "/a.json"}', '{"manifest": 1, "x": 2}'])
def test_a_record_that_cannot_be_read_is_named(run: ArrayRun, content: str) -> None:
    (run.folder / "amela-run.json").write_text(content)
    with pytest.raises(ManifestError, match=r"run/amela-run\.json cannot be read as the record of a run"):
        ArrayRun.open(run.folder)


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no run of a job array.*manifest split MANIFEST --splits N -o"):
        ArrayRun.open(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(users_folder: Path) -> None:
    (users_folder / "data.json").write_text('{"audio_filepath": "/a.wav"}')
    users_folder.chmod(0o500)
    with pytest.raises(ManifestError, match=r"cannot be made a run's folder: .*Permission denied"):
        ArrayRun.split(Manifest(users_folder / "data.json"), 1, users_folder / "run")


def settle(run: ArrayRun, task: int, *, transient: bool = False) -> None:
    """Leave what a task leaves that was stopped after two of its entries."""
    with Journal.open(run.result(task).with_name(f"{run.result(task).name}.journal"), KEY) as journal:
        journal.record(0, {"text": "one"})
        journal.record_failure(1, "SERVER_LOST" if transient else "AUDIO_CORRUPT", "why", transient=transient)


def test_the_state_of_each_task_is_what_its_files_tell(run: ArrayRun) -> None:
    assert [str(state) for state in run.states()] == ["not started"] * 3
    settle(run, 0)
    run.result(1).write_text("{}\n")
    run.result(1).with_name("data_split_01.errors.jsonl").write_text("{}\n")
    assert [str(state) for state in run.states()] == [
        "unfinished, 2 of 3 entries",
        "done, 1 of 2 entries quarantined",
        "not started",
    ]
    assert [(state.left, state.left_to_run) for state in run.states()] == [(1, True), (0, False), (2, True)]


def test_a_task_that_is_done_but_for_failures_that_may_pass_can_run_again(run: ArrayRun) -> None:
    settle(run, 0, transient=True)
    assert str(run.state(0)) == "unfinished, 1 of 3 entries"
    assert run.state(0).left == 2
    run.result(0).write_text("{}\n{}\n")
    run.result(0).with_name("data_split_00.errors.jsonl").write_text("{}\n")
    assert str(run.state(0)) == (
        "done, 1 of 3 entries quarantined; 1 of them may succeed in another run of the task"
    )
    assert (run.state(0).done, run.state(0).left, run.state(0).left_to_run) == (True, 1, True)


def test_a_record_that_was_mended_and_a_torn_line_count_as_the_journal_counts_them(run: ArrayRun) -> None:
    settle(run, 0, transient=True)
    journal = run.result(0).with_name("data_split_00.json.journal")
    with journal.open("ab") as file:
        file.write(b'{"index": 1, "result": {"text": "two"}}\n{"index": 2, "resu')
    assert (run.state(0).settled, run.state(0).passing) == (2, 0)


def test_what_tasks_do_can_change_until_the_first_of_them_has_begun(run: ArrayRun) -> None:
    run.settle_on("transcribe", {"words": True})
    run.settle_on("vad", {})
    with pytest.raises(SetupError, match="has begun already, and it was vad, now it is encode"):
        run.settle_on("encode", {}, begun=True)
    run.settle_on("transcribe", {"model": "a"})
    settle(run, 1)
    run.settle_on("transcribe", {"model": "a"})
    with pytest.raises(
        SetupError, match=r'model was "a", now it is "b"; words was null, now it is true\. To go on'
    ):
        run.settle_on("transcribe", {"model": "b", "words": True})


def test_a_share_is_of_its_whole_manifest_and_other_files_are_their_own(
    run: ArrayRun, tmp_path: Path
) -> None:
    assert whole_manifest(run.share(1)) == tmp_path / "data.json"
    assert whole_manifest(tmp_path / "data.json") == tmp_path / "data.json"
    assert whole_manifest(run.folder / "other.json") == run.folder / "other.json"
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(
        ManifestError, match=r"data\.json has changed since .*data_split_01\.json was made of it"
    ):
        whole_manifest(run.share(1))
    (tmp_path / "data.json").unlink()
    with pytest.raises(ManifestError, match=r"there is no manifest .*data\.json"):
        whole_manifest(run.share(1))

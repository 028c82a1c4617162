"""One task's part of a manifest, and how the parts find together again."""

import json
from pathlib import Path

import pytest
from amela_client.errors import ManifestError, MergeError
from amela_client.manifest import Entry, Manifest
from amela_client.share_merge import merge_shares
from amela_client.task_share import ManifestShare, Share


def write(path: Path, count: int) -> Path:
    path.write_text("".join(f'{{"audio_filepath": "/{i}.wav", "n": {i}}}\n' for i in range(count)))
    return path


def test_shares_are_round_robin_and_merge_into_the_manifests_order(tmp_path: Path) -> None:
    path = write(tmp_path / "data.json", 7)
    for task in range(3):
        share = ManifestShare(path, Share(task, 3))
        items = [item for item in share if isinstance(item, Entry)]
        assert [item.index for item in items] == list(range(task, 7, 3))
        (tmp_path / f"done_{task}").write_text("".join(f"{item.raw}\n" for item in items))
    merge_shares([str(tmp_path / "done_*")], tmp_path / "done.json")
    assert [json.loads(line)["n"] for line in (tmp_path / "done.json").read_text().splitlines()] == list(
        range(7)
    )
    (tmp_path / "done_1").unlink()
    with pytest.raises(MergeError, match="2 of 7 entries are missing"):
        merge_shares([str(tmp_path / "done_*")], tmp_path / "done.json")


def test_more_tasks_than_entries_leave_shares_empty(tmp_path: Path) -> None:
    assert list(ManifestShare(write(tmp_path / "data.json", 2), Share(5, 8))) == []


def test_each_share_is_a_run_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "data.json", 4)
    digests = {ManifestShare(path, Share(task, tasks)).digest for tasks in (2, 3) for task in range(tasks)}
    assert len(digests | {Manifest(path).digest}) == 6


def test_a_share_of_a_share_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"audio_filepath": "/a.wav", "amela_share": [0, 1, 1]}\n')
    with pytest.raises(ManifestError, match="line 1 is a share's already"):
        list(ManifestShare(path, Share(0, 1)))


def test_outputs_are_named_after_their_task(tmp_path: Path) -> None:
    assert Share(3, 16).of(tmp_path / "done.json") == tmp_path / "done_task_03_of_16.json"
    assert Share(3, 1000).of(tmp_path / "units.jsonl") == tmp_path / "units_task_003_of_1000.jsonl"


def test_results_of_another_number_of_tasks_are_in_the_way(tmp_path: Path) -> None:
    for name in ("done_task_00_of_16.json", "other_task_00_of_8.json", "done_task_x_of_y.json"):
        (tmp_path / name).touch()
    Share(3, 16).of(tmp_path / "done.json")
    with pytest.raises(MergeError, match=r"done_task_00_of_16\.json is of a run with 16 tasks, not 8"):
        Share(3, 8).of(tmp_path / "done.json")

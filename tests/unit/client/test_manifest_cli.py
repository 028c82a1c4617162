import json
import os
from pathlib import Path

import pytest
from amela_client.cli.manifest import app
from amela_client.errors import ManifestError, MergeError
from click.testing import Result
from typer.testing import CliRunner


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "good.wav").write_bytes(b"RIFF")
    (tmp_path / "folder.wav").mkdir()
    lines = [
        '\ufeff{"audio_filepath": "good.wav"}',
        '{"audio_filepath": "/nowhere.wav"}',
        "{",
        f'{{"audio_filepath": "{tmp_path}/empty.wav"}}\r',
        f'{{"audio_filepath": "{tmp_path}/folder.wav"}}',
        f'{{"audio_filepath": "{tmp_path}/good.wav/x.wav"}}',
        f'{{"audio_filepath": "{tmp_path}/{"a" * 300}.wav"}}',
        '{"audio_filepath": "/b.wav", "duration": NaN}',
    ]
    (tmp_path / "data.json").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "data.json"


def test_validate_names_everything_that_is_wrong_at_once(broken: Path) -> None:
    result = run("validate", broken)
    assert result.exit_code == 1
    faults = [line.split(": ")[:2] for line in result.stdout.splitlines() if "warning" not in line][:-1]
    assert faults == [[f"{broken}:3", "BAD_JSON"], [f"{broken}:8", "BAD_DURATION"]]
    assert result.stdout.count("warning: ") == 3
    assert "8 lines, 2 of them wrong" in result.stdout


def test_validate_strictly_refuses_relative_paths(broken: Path) -> None:
    assert f"{broken}:1: RELATIVE_PATH" in run("validate", broken, "--strict").stdout


def test_validate_looks_at_the_files_on_request(broken: Path) -> None:
    result = run("validate", broken, "--check-files", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [(fault["line"], fault["reason"]) for fault in found["faults"]] == [
        (2, "AUDIO_NOT_FOUND"),
        (3, "BAD_JSON"),
        (4, "AUDIO_EMPTY"),
        (5, "AUDIO_NOT_A_FILE"),
        (6, "AUDIO_NOT_FOUND"),
        (7, "STORAGE_FAILED"),
        (8, "BAD_DURATION"),
    ]
    assert (found["lines"], len(found["warnings"]), found["error"]) == (8, 3, None)


def test_validate_names_files_that_may_not_be_read(users_folder: Path) -> None:
    (users_folder / "locked").mkdir()
    for name in ("secret.wav", "locked/a.wav"):
        (users_folder / name).write_bytes(b"RIFF")
    (users_folder / "data.json").write_text(
        '{"audio_filepath": "secret.wav"}\n{"audio_filepath": "locked/a.wav"}'
    )
    (users_folder / "secret.wav").chmod(0)
    (users_folder / "locked").chmod(0)
    result = run("validate", users_folder / "data.json", "--check-files")
    assert result.stdout.count("AUDIO_UNREADABLE") == 2


def test_validate_is_content_with_a_good_manifest(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"audio_filepath": "/a.wav"}\n')
    result = run("validate", tmp_path / "data.json", "--strict")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/data.json: 1 lines, 0 of them wrong\n")
    found = json.loads(run("validate", tmp_path / "data.json", "--json").stdout)
    assert (found["faults"], found["warnings"], found["error"]) == ([], [], None)


@pytest.mark.parametrize("content", [None, "", "[]"])
def test_validate_says_what_is_wrong_with_the_whole_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_text(content)
    result = run("validate", path)
    assert result.exit_code == 1
    assert str(path) in result.stdout
    found = run("validate", path, "--json")
    assert found.exit_code == 1
    assert str(path) in json.loads(found.stdout)["error"]


def test_build_writes_a_manifest_and_says_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    result = run("build", tmp_path, "-o", tmp_path / "data.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 recordings, 0.00 h and 1 of unknown duration" in result.stdout
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")).touch()
    result = run("build", tmp_path, "-o", tmp_path / "data.json")
    assert result.exit_code == 3
    assert "\\udcff.wav: the name is not UTF-8" in result.stderr
    assert len((tmp_path / "data.json").read_text().splitlines()) == 1


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of five entries in two shares; by relative paths, as users give them."""
    monkeypatch.chdir(tmp_path)
    content = "".join(f'{{"audio_filepath": "/{number}.wav"}}\n' for number in range(5))
    (tmp_path / "data.json").write_text(content)
    said = run("split", "data.json", "--splits", 2).stdout
    assert said == "2 shares: splits/data_split_00.json to data_split_01.json\n"
    return tmp_path / "splits"


def finish(splits: Path, task: int) -> Path:
    result = splits / "results" / f"data_split_0{task}.json"
    result.write_bytes((splits / result.name).read_bytes())
    return result


def test_split_and_merge_give_the_manifest_back(splits: Path) -> None:
    result = run("merge", "splits/*_split_*.json", "-o", "final.json")
    assert (result.exit_code, result.stdout) == (0, "final.json: 5 lines of 2 shares\n")
    assert Path("final.json").read_text() == Path("data.json").read_text()


def test_tasks_says_how_far_each_is_and_what_to_run_again(splits: Path) -> None:
    finish(splits, 0)
    result = run("tasks", "splits")
    assert result.stdout.splitlines() == [
        "    0  done",
        "    1  not started",
        "1 of 2 tasks are done; run the others: --array=1",
    ]
    found = json.loads(run("tasks", "splits", "--json").stdout)
    assert (found["manifest"], found["unfinished"]) == (str(splits.parent / "data.json"), "1")
    assert [(task["task"], task["state"], task["entries"]) for task in found["tasks"]] == [
        (0, "done", 3),
        (1, "not started", 2),
    ]
    finish(splits, 1)
    assert run("tasks", "splits").stdout.splitlines()[-1] == "2 of 2 tasks are done"


def test_merging_a_folder_needs_all_its_tasks_and_passes_quarantine_on(splits: Path) -> None:
    finish(splits, 0)
    result = run("merge", "splits", "-o", "final.json")
    assert isinstance(result.exception, MergeError)
    assert str(result.exception) == (
        "1 of 2 tasks in splits are not done: task 1 is not started. Run them again with --array=1"
    )
    first, second = finish(splits, 1).read_text().splitlines()
    (splits / "results" / "data_split_01.json").write_text(f"{first}\n")
    failed = json.loads(second) | {"line": 2, "reason": "R", "message": "m"}
    (splits / "results" / "data_split_01.errors.jsonl").write_text(f"{json.dumps(failed)}\n")
    result = run("merge", "splits", "-o", "final.json")
    assert (result.exit_code, result.stdout.splitlines()) == (
        3,
        ["final.json: 4 lines of 2 shares", "final.errors.jsonl: 1 entries quarantined"],
    )
    assert json.loads(Path("final.errors.jsonl").read_text())["line"] == 4


def test_merging_results_of_different_models_is_warned_about(splits: Path) -> None:
    for task, fingerprint in enumerate("ab"):
        lines = [json.loads(line) for line in (splits / f"data_split_0{task}.json").read_text().splitlines()]
        model = {"engine": "e", "name": "n", "fingerprint": fingerprint}
        named = "".join(f"{json.dumps(line | {'vad_model': model})}\n" for line in lines)
        (splits / "results" / f"data_split_0{task}.json").write_text(named)
    result = run("merge", "splits", "-o", "final.json")
    assert result.exit_code == 0
    assert "vad_model differs between lines: e n (fingerprint a), e n (fingerprint b)" in result.stderr


def test_only_results_of_vad_make_a_table(splits: Path) -> None:
    result = run("merge", "splits/*_split_*.json", "-o", "final.json", "--csv", "final.csv")
    assert isinstance(result.exception, MergeError)
    assert "only results of vad make a table" in str(result.exception)
    assert not Path("final.csv").exists()


def test_errors_of_the_library_reach_whoever_runs_the_commands(tmp_path: Path) -> None:
    for arguments, error in (
        (("build", tmp_path, "-o", tmp_path / "data.json"), ManifestError),
        (("split", tmp_path / "data.json", "--splits", 2), ManifestError),
        (("tasks", tmp_path), ManifestError),
        (("merge", tmp_path, "-o", tmp_path / "final.json"), ManifestError),
        (("merge", tmp_path / "*.json", "-o", tmp_path / "final.json"), MergeError),
    ):
        assert isinstance(run(*arguments).exception, error)


@pytest.mark.parametrize(
    "arguments", [("split", "data.json"), ("split", "data.json", "--splits", 0), ("build",)]
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...]) -> None:
    assert run(*arguments).exit_code == 2

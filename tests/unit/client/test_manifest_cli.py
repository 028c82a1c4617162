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


def test_split_and_merge_give_the_manifest_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = "".join(f'{{"audio_filepath": "/{number}.wav"}}\n' for number in range(5))
    (tmp_path / "data.json").write_text(content)
    assert "2 shares" in run("split", "data.json", "--splits", 2).stdout
    result = run("merge", "splits/*_split_*.json", "-o", "final.json")
    assert (result.exit_code, result.stdout) == (0, "final.json: 5 lines of 2 shares\n")
    assert (tmp_path / "final.json").read_text() == content


def test_errors_of_the_library_reach_whoever_runs_the_commands(tmp_path: Path) -> None:
    for arguments, error in (
        (("build", tmp_path, "-o", tmp_path / "data.json"), ManifestError),
        (("split", tmp_path / "data.json", "--splits", 2), ManifestError),
        (("merge", tmp_path / "*.json", "-o", tmp_path / "final.json"), MergeError),
    ):
        assert isinstance(run(*arguments).exception, error)


@pytest.mark.parametrize(
    "arguments", [("split", "data.json"), ("split", "data.json", "--splits", 0), ("build",)]
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...]) -> None:
    assert run(*arguments).exit_code == 2

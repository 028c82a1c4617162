"""``task`` and ``submit`` as far as they go without servers and without SLURM."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from amela_client.cli import main

Cli = Callable[..., tuple[object, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run ``amela-client`` in a folder with a manifest, where no SLURM and no site file is found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()
    lines = [json.dumps({"audio_filepath": f"{tmp_path}/audio/{number}.wav"}) for number in range(4)]
    (tmp_path / "data.json").write_text("\n".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("AMELA_SITE", "AMELA_MODEL", "AMELA_ENGINE", "AMELA_CLIENT_IMAGE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["amela-client", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    yield run
    logging.getLogger("amela_client").handlers.clear()
    logging.getLogger("amela_client").propagate = True


@pytest.fixture
def split(cli: Cli) -> Path:
    assert cli("manifest", "split", "data.json", "--splits", "2")[0] == 0
    return Path("splits")


def test_a_task_says_what_is_left_and_where_the_recordings_are(cli: Cli, split: Path, tmp_path: Path) -> None:
    assert cli("task", "transcribe", "splits", "--task-id", "1", "--left")[:2] == (0, f"2 {tmp_path}/audio\n")


def test_a_task_takes_its_number_from_slurm(cli: Cli, split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("task", "transcribe", "splits", "--left")[0] == 2
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert cli("task", "transcribe", "splits", "--left")[0] == 0


def test_a_task_that_is_done_is_left_alone(cli: Cli, split: Path) -> None:
    (split / "results" / "data_split_01.json").write_text("{}\n")
    (split / "results" / "data_split_01.errors.jsonl").write_text("{}\n")
    code, out, _ = cli("task", "vad", "splits", "--task-id", "1")
    assert (code, out) == (3, "task 1: done, 1 of 2 entries quarantined; nothing is left to do\n")
    assert (split / "results" / "data_split_01.json").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("vad splits --task-id 2", "there is no task 2: {folder} has 2, so give --array=0-1"),
        ("vad splits --task-id -1", "there is no task -1"),
        ("sing splits --task-id 0", "'sing' is not one of 'transcribe', 'vad', 'encode'"),
        ("vad splits --task-id 0 -- -o x.json", "leave --output out: each task writes results of its own"),
        ("vad splits --task-id 0 -- --csv x.csv", "leave --csv out: `manifest merge --csv`"),
        ("vad splits --task-id 0 -- --tasks 2 --task-id 0", "leave --tasks out"),
        ("transcribe splits --task-id 0 -- --in-place", "leave --in-place out"),
        ("resynthesize splits --task-id 0 -- -o v --manifest m", "leave --manifest out"),
        ("resynthesize splits --task-id 0", "Missing option '--output'"),
        ("vad splits --task-id 0 -- --sing", "No such option: --sing"),
        ("vad splits --task-id 0 -- --threshold 2", "Invalid value for '--threshold'"),
    ],
)
def test_what_no_task_can_do_is_refused_with_exit_code_2(
    cli: Cli, split: Path, arguments: str, words: str
) -> None:
    code, _, err = cli("task", *arguments.split())
    assert code == 2
    assert words.format(folder=split.absolute()) in " ".join(err.replace("│", " ").split())


def test_a_share_that_is_missing_is_named_with_the_cure(cli: Cli, split: Path) -> None:
    (split / "data_split_01.json").unlink()
    code, _, err = cli("task", "vad", "splits", "--task-id", "1", "--left")
    assert code == 2
    assert "data_split_01.json is missing: give the command that split" in err


def test_all_tasks_have_the_same_options_and_the_same_model(
    cli: Cli, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMELA_MODEL", "canary")
    command = ("task", "transcribe", "splits", "--left", "--task-id")
    assert cli(*command, "0", "--", "--words", "--wait", "5", "--quiet")[0] == 0
    (split / "results" / "data_split_00.json").write_text("{}\n")
    assert cli(*command, "1", "--", "--words", "--mix-models")[0] == 0
    code, _, err = cli(*command, "1")
    assert (code, "words was true, now it is null" in err) == (2, True)
    monkeypatch.delenv("AMELA_MODEL")
    assert 'model was "canary", now it is null' in cli(*command, "1", "--", "--words")[2]


def test_files_of_a_share_go_where_those_of_the_whole_manifest_would(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(
        '{"audio_filepath": "/corpus/a/1.wav"}\n{"audio_filepath": "/corpus/b/1.wav"}\n'
        '{"audio_filepath": "/corpus/a/1.flac"}\n'
    )
    cli("manifest", "split", "data.json", "--splits", "2")
    # They lie in two shares, and would become one file.
    code, _, err = cli("task", "resynthesize", "splits", "--task-id", "1", "--", "-o", "voices")
    assert code == 1
    assert "data.json: lines 1 and 3 would both become 1.wav in the same folder" in err


def test_submit_prints_its_scripts_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    command = ("submit", "vad", "data.json", "--tasks", "2", "-o", "done.json", "--dry-run")
    code, out, _ = cli(*command, "--cpus", "3", "--", "--min-speech", "0.1")
    assert code == 0
    assert "#SBATCH --cpus-per-task=3\n" in out
    assert f"set -- vad {tmp_path}/done.run -- --min-speech 0.1" in out
    assert f"set -- {tmp_path}/done.run {tmp_path}/done.json" in out
    found = json.loads(cli(*command, "--json")[1])
    assert found["run"] == str(tmp_path / "done.run")
    assert found["array"].startswith("#!/bin/bash\n")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("vad data.json --tasks 2 -o done.json", "sbatch is not on PATH"),
        ("vad data.json --tasks 2", "say where the results go: -o FILE"),
        ("transcribe data.json --tasks 2 --csv x.csv", "--csv is of results of vad"),
        ("vad data.json --tasks 2 -o done.json --csv ./data.json", "--csv data.json is data.json or"),
        ("vad data.json --tasks 2 -o done.json --csv done.json", "name a file of its own"),
        ("transcribe data.json --tasks 2 -- --sing", "No such option: --sing"),
        ("transcribe data.json --tasks 2 --time soon", "--time 'soon' is not a time limit"),
        ("transcribe data.json --tasks 2 --image /no.sif", "the image /no.sif is not there"),
        ("transcribe data.json --tasks 2 --model /no.nemo", "the model /no.nemo is not there"),
        ("vad data.json --tasks 2 -o done.json --model x", "vad has one engine and no models"),
        ("vad data.json -o done.json", "Missing option '--tasks'"),
    ],
)
def test_what_cannot_be_submitted_is_refused_with_exit_code_2_and_nothing_is_written(
    cli: Cli, tmp_path: Path, arguments: str, words: str
) -> None:
    code, _, err = cli("submit", *arguments.split())
    assert code == 2, err
    assert words in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("*.run"))


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_submitted(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "amela-vad", "amela-client"):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    command = ("submit", "vad", "data.json", "--tasks", "2", "-o", "done.json", "--csv", "tables/vad.csv")
    code, _, err = cli(*command)
    assert (code, f"there is no folder {tmp_path}/tables to write vad.csv into" in err) == (1, True)
    assert not list(tmp_path.glob("*.run"))


def test_only_synthesis_does_without_the_recordings(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "audio").rmdir()
    said = f"the audio folder {tmp_path}/audio"
    assert said in cli("submit", "encode", "data.json", "--tasks", "2", "-o", "units.jsonl")[2]
    code, _, err = cli("submit", "synthesize", "data.json", "--tasks", "2", "-o", "voices")
    assert (code, "sbatch is not on PATH" in err, said in err) == (2, True, False)


def test_a_manifest_that_does_not_make_so_many_tasks_is_not_submitted(cli: Cli) -> None:
    code, _, err = cli("submit", "transcribe", "data.json", "--tasks", "5")
    assert (code, "has 4 entries, which do not make 5 shares" in err) == (1, True)

"""The command line as far as it goes without servers: its help, its errors, its exit codes."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from amela_client.cli import main
from amela_client.cli.running import StoppedError, describe, until_signal
from amela_client.run import RunSummary


class Result(NamedTuple):
    code: object
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run ``amela-client`` in an empty folder, with no servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMELA_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["amela-client", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(ended.value.code, *capsys.readouterr())

    yield run
    logging.getLogger("amela_client").handlers.clear()
    logging.getLogger("amela_client").propagate = True


def write(name: str, *lines: object) -> Path:
    path = Path(name)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_the_help_is_a_tour_with_an_example_of_each_command(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for example in (
        "amela-client manifest build /corpus -o data.json",
        "amela-client manifest validate data.json",
        "amela-client transcribe data.json -o done.json --tasks 30 --task-id $SLURM_ARRAY_TASK_ID",
        "amela-client manifest merge 'done_task_*.json' -o done.json",
        "amela-client score done.json --normalize",
        "amela-client encode data.json -o units.jsonl --dedup",
        "amela-client synthesize units.jsonl -o voices",
        "amela-client resynthesize data.json -o voices --speaker ex02",
        "amela-client transcribe data.json -o done.json --local",
        "amela-client vad /corpus -o vad.json --csv vad.csv",
        "amela-client servers",
        "amela-client up asr --model canary-qwen --count 4 --time 8:00:00",
        "amela-client down asr-3f9a2c",
    ):
        assert example in out


@pytest.mark.parametrize("command", ["transcribe", "vad", "servers", "up", "status", "logs", "scale", "down"])
def test_each_command_has_an_example_and_says_its_exit_codes(cli: Cli, command: str) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert f"amela-client {command} " in out
    assert "Exit code" in out


def test_without_a_command_there_is_help(cli: Cli) -> None:
    assert "amela-client transcribe data.json" in "".join(map(str, cli()))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["transcribe"], "MANIFEST"),
        (["transcribe", "data.json", "--nonsense"], "--nonsense"),
        (["transcribe", "data.json", "--in-place", "-o", "out.json"], "--in-place"),
        (["transcribe", "data.json", "--confidence"], "--words"),
        (["transcribe", "data.json", "--local", "--server", "node7:1"], "--local"),
        (["transcribe", "data.json", "--local", "--registry", "folder"], "--local"),
        (["transcribe", "data.json", "--channel", "-1"], "--channel"),
        (["transcribe", "data.json", "--prompt", "caf\udce9"], "--prompt"),
        (["transcribe", "data.json", "--language", "caf\udce9"], "--language"),
        (["resynthesize", "data.json", "-o", "voices", "--speaker", "caf\udce9"], "--speaker"),
        (["synthesize", "data.json", "-o", "voices", "--style", "caf\udce9"], "--style"),
        (["synthesize", "data.json", "-o", "voices", "--style", "4294967296"], "--style"),
        (["synthesize", "data.json", "-o", "voices", "--speaker", "9" * 5_000], "--speaker"),
        (["submit", "transcribe", "data.json", "--tasks", "1", "--", "--prompt", "caf\udce9"], "--prompt"),
        (["vad", "data.json"], "--output"),
        (["vad", "data.json", "-o", "vad.json", "--threshold", "1.5"], "--threshold"),
        (["vad", "data.json", "-o", "vad.json", "--padding", "-1"], "--padding"),
        (["vad", "data.json", "-o", "vad.json", "--merge-gap", "inf"], "--merge-gap"),
        (["vad", "data.json", "-o", "vad.json", "--min-speech", "nan"], "--min-speech"),
        (["vad", "data.json", "-o", "vad.json", "--channel", "5000000000"], "--channel"),
        (["vad", "data.json", "-o", "vad.json", "--csv", "vad.json"], "--csv"),
        (["vad", "data.json", "-o", "vad.json", "--csv", "data.json"], "--csv"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(cli: Cli, arguments: list[str], names: str) -> None:
    write("data.json", {"audio_filepath": "/a.wav"})
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert names in err
    assert "Traceback" not in err
    assert list(Path().iterdir()) == [Path("data.json")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "missing.json"], "there is no manifest"),
        (["transcribe", "folder"], "is a folder; `amela-client manifest build"),
        (["transcribe", "empty.json"], "empty"),
        (["transcribe", "array.json"], "array"),
        (["transcribe", "data.json", "-o", "missing/out.json"], "there is no folder"),
        (["transcribe", "data.json", "-o", "data.json"], "--in-place"),
        (["transcribe", "data.json", "--server", "node7"], "HOST:PORT"),
        (["transcribe", "data.json", "--server", "caf\udce9:50051"], "HOST:PORT"),
        (["vad", "missing.json", "-o", "vad.json"], "there is no manifest"),
        (["vad", "folder", "-o", "vad.json"], "there is no recording below folder"),
        (["vad", "data.json", "-o", "vad.json", "--csv", "missing/vad.csv"], "there is no folder"),
        (["servers", "--registry", "data.json"], "is not a folder"),
    ],
)
def test_errors_are_a_line_or_two_without_a_traceback(cli: Cli, arguments: list[str], message: str) -> None:
    Path("folder").mkdir()
    write("data.json", {"audio_filepath": "/a.wav"})
    write("empty.json")
    write("array.json", [{"audio_filepath": "/a.wav"}])
    before = sorted(Path().iterdir())
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("amela-client: ")
    assert err.count("\n") <= 2
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "service"),
    [(["transcribe", "data.json"], "amela-asr"), (["vad", "data.json", "-o", "vad.json"], "amela-vad")],
)
def test_without_servers_it_says_where_it_looked_and_what_to_type(
    cli: Cli, arguments: list[str], service: str, tmp_path: Path
) -> None:
    write("data.json", {"audio_filepath": "/a.wav"})
    code, _, err = cli(*arguments, "--wait", "0", "--quiet")
    assert code == 1
    assert f"{tmp_path}/registry, which does not exist" in err
    assert f"`{service} --registry" in err
    assert "--server HOST:PORT" in err and "--local" in err
    assert list(Path().iterdir()) == [Path("data.json")]


@pytest.mark.parametrize("arguments", [["servers"], ["transcribe", "data.json"]])
@pytest.mark.parametrize("options", [[], ["--server", "127.0.0.1:9", "--token", "token"]])
def test_a_token_that_no_call_can_carry_is_named_with_the_cure(
    cli: Cli, tmp_path: Path, arguments: list[str], options: list[str]
) -> None:
    write("data.json", {"audio_filepath": "/a.wav"})
    folder = tmp_path if options else tmp_path / "registry"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text("s3cret\ns3cret\n")
    code, out, err = cli(*arguments, *options)
    assert (code, out) == (1, "")
    assert err.startswith("amela-client: token ")
    assert str(Path("token" if options else folder / "token")) in err
    assert "not one line of printable ASCII text: copy the servers' own again" in err


def test_servers_without_any_says_where_it_looked_and_what_to_type(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("servers")
    assert (code, out) == (1, "")
    assert f"{tmp_path}/registry, which does not exist" in err
    assert "`amela-vad` or `amela-asr`" in err
    code, out, _ = cli("servers", "--json")
    assert (code, json.loads(out)) == (1, [])


def test_the_default_output_lies_beside_the_manifest(cli: Cli) -> None:
    write("data.csv").write_text("audio_filepath,text\n/a.wav,he was\n")
    code, out, err = cli("transcribe", "data.csv")
    assert (code, out) == (0, "")
    assert json.loads(Path("data.transcribed.json").read_text())["text"] == "he was"
    assert "data.transcribed.json: 0 entries with results, 1 that had theirs before" in err


def test_quarantined_entries_are_exit_code_3_and_are_counted_by_reason(cli: Cli) -> None:
    write("data.json", {"audio_filepath": "/a.wav", "text": "x"}, {}, 7, 8)
    code, _, err = cli("transcribe", "data.json", "-o", "out.json")
    assert code == 3
    assert "1 that had theirs before, 3 quarantined" in err
    assert "out.errors.jsonl: 2 NOT_AN_OBJECT, 1 MISSING_AUDIO_FILEPATH" in err


def test_json_is_alone_on_standard_output(cli: Cli, tmp_path: Path) -> None:
    write("data.json", {"audio_filepath": "a.wav", "text": "x"}, 7)
    code, out, err = cli("transcribe", "data.json", "-o", "out.json", "--json")
    assert code == 3
    summary = json.loads(out)
    assert summary["skipped"] == 1
    assert summary["quarantined"] == {"NOT_AN_OBJECT": 1}
    assert summary["output"] == str(tmp_path / "out.json")
    assert "warning: relative paths" in err


def test_quiet_shows_nothing_if_nothing_is_wrong(cli: Cli) -> None:
    write("data.json", {"audio_filepath": "a.wav", "text": "x"})
    assert cli("transcribe", "data.json", "-o", "out.json", "--quiet") == (0, "", "")


def test_strict_quarantines_relative_paths(cli: Cli) -> None:
    write("data.json", {"audio_filepath": "a.wav", "text": "x"})
    code, _, err = cli("transcribe", "data.json", "-o", "out.json", "--strict")
    assert code == 3
    assert "1 RELATIVE_PATH" in err


def test_local_without_the_servers_program_says_how_to_get_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("data.json", {"audio_filepath": "/a.wav"})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = cli("vad", "data.json", "-o", "vad.json", "--local", "--quiet")
    assert code == 1
    assert "--local needs amela-vad" in err
    assert f"{tmp_path}/bin" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_work_so_that_it_ends_in_order(number: signal.Signals) -> None:
    ended = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    before = signal.getsignal(number)
    with pytest.raises(StoppedError) as stopped:
        until_signal(work())
    assert (stopped.value.number, ended) == (number, [True])
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.01)
        return "done"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert until_signal(work()) == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_wait_for_the_work_to_end_in_order() -> None:
    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    with pytest.raises(StoppedError):
        until_signal(work())


def test_an_error_of_the_work_comes_through() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        until_signal(work())


def test_the_summary_says_what_came_of_which_entries(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    summary = RunSummary(
        results=1500,
        resumed=300,
        skipped=20,
        quarantined={"AUDIO_NOT_FOUND": 2, "WORKER_LOST": 1},
        passing=1,
        gaps=4,
        audio_seconds=7200.0,
        elapsed=60.0,
        models=(),
        output=output,
        errors=tmp_path / "out.errors.jsonl",
    )
    assert describe(summary) == [
        f"{output}: 1,500 entries with results, 300 settled by the run before this one, 20 that had"
        " theirs before, 3 quarantined; 2:00:00 of audio in 0:01:00, 120.0× real time",
        "4 of the results lack a piece: text_gaps in their lines says which",
        f"{tmp_path}/out.errors.jsonl: 2 AUDIO_NOT_FOUND, 1 WORKER_LOST",
        "1 of those may succeed later: give the same command again to try",
    ]

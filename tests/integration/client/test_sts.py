"""Units and resynthesis through the client and a server that answers as the contract says."""

import os
import signal
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amela_client.client import AmelaClient
from amela_client.errors import CallError, OutputError
from amela_client.sync import SyncAmelaClient

from tests.conftest import RunningServer, StartServer, wait_until
from tests.integration.client.conftest import Cli, Line

SERVER = [sys.executable, str(Path(__file__).parent / "fake_sts_server.py")]
MODEL = {"engine": "fake", "name": "fake", "fingerprint": "0123456789abcdef"}
UNITS = [1, 1, 2, 3]
SECONDS = len(UNITS) * 320 / 16_000


@pytest.fixture(scope="module")
def sts(start_module_server: StartServer) -> RunningServer:
    return start_module_server(SERVER)


def recordings(*names: str) -> list[Line]:
    return [{"audio_filepath": f"/corpus/{name}", "id": index} for index, name in enumerate(names)]


def read_wav(path: Path) -> tuple[int, list[int]]:
    with wave.open(str(path)) as wav:
        assert (wav.getnchannels(), wav.getsampwidth()) == (1, 2)
        return wav.getframerate(), np.frombuffer(wav.readframes(wav.getnframes()), "<i2").tolist()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The library.


async def test_units_come_whole_from_many_parts(sts: RunningServer) -> None:
    async with AmelaClient(sts.registry) as client:
        units = await client.encode("/corpus/long-60.wav", dense_features=True)
    assert list(units.units) == [unit % 7 for unit in range(3000)]
    assert set(units.durations) == {1}
    features = np.asarray(units.dense_features).reshape(-1, units.feature_dim)
    assert features.shape == (3000, 2)
    assert features[:, 0].tolist() == list(units.units)
    assert units.audio_seconds == 60.0
    assert units.model._asdict().items() >= MODEL.items()


async def test_deduplicated_units_have_durations(sts: RunningServer) -> None:
    async with AmelaClient(sts.registry) as client:
        units = await client.encode("/corpus/a.wav", deduplicate=True)
    assert (list(units.units), list(units.durations)) == ([1, 2, 3], [2, 1, 1])
    assert (len(units.dense_features), units.feature_dim) == (0, 0)


@pytest.mark.parametrize("seconds", [0.5, 40])
async def test_audio_comes_whole_with_its_rate_and_units_whether_in_memory_or_on_disk(
    sts: RunningServer, seconds: float
) -> None:
    async with AmelaClient(sts.registry) as client:
        audio = await client.resynthesize(f"/corpus/long-{seconds}.wav", speaker="ex01")
    units = np.arange(int(seconds * 50)) % 7
    assert (audio.sample_rate, audio.audio_seconds) == (16_000, seconds)
    assert list(audio.units) == units.tolist()
    expected = np.repeat(units.astype(np.float32) / np.float32(10), 320)
    assert np.array_equal(np.asarray(audio.samples), expected)
    assert np.array_equal(np.asarray(audio.samples), expected)


def test_the_blocking_client_does_the_same(sts: RunningServer, tmp_path: Path) -> None:
    with SyncAmelaClient(sts.registry) as client:
        units = client.encode("/corpus/a.wav", deduplicate=True)
        audio = client.synthesize(units.units, durations=units.durations)
        assert list(client.resynthesize("/corpus/a.wav").samples) == list(audio.samples)
        assert client.synthesize([1, 2], predict_durations=True).audio_seconds == 0.08
    with (tmp_path / "a.wav").open("wb") as file:
        audio.write_wav(file)
    rate, samples = read_wav(tmp_path / "a.wav")
    assert (rate, samples[::320]) == (16_000, [3277, 3277, 6553, 9830])


async def test_audio_louder_than_16_bits_is_clipped_and_does_not_wrap(
    sts: RunningServer, tmp_path: Path
) -> None:
    async with AmelaClient(sts.registry) as client:
        audio = await client.synthesize([9, 10, 40], durations=[1, 1, 1])
    with (tmp_path / "a.wav").open("wb") as file:
        audio.write_wav(file)
    assert read_wav(tmp_path / "a.wav")[1][::320] == [29490, 32767, 32767]


async def test_an_answer_without_its_end_is_no_answer(sts: RunningServer) -> None:
    async with AmelaClient(sts.registry) as client:
        for call in (client.encode, client.resynthesize):
            with pytest.raises(CallError, match="cannot be read") as failure:
                await call("/corpus/torn.wav")
            assert (failure.value.reason, failure.value.transient) == ("INTERNAL", True)


async def test_a_servers_reason_comes_through_a_stream(sts: RunningServer) -> None:
    async with AmelaClient(sts.registry) as client:
        with pytest.raises(CallError, match="as planned") as failure:
            await client.encode("/corpus/fail-AUDIO_CORRUPT.wav")
        assert failure.value.reason == "AUDIO_CORRUPT"
        with pytest.raises(CallError, match="durations: they are missing"):
            await client.synthesize([1, 2])


async def test_long_audio_without_a_place_to_keep_it_says_what_to_do(
    sts: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    async with AmelaClient(sts.registry) as client:
        assert (await client.resynthesize("/corpus/long-1.wav")).audio_seconds == 1
        with pytest.raises(OutputError, match=r"gone cannot take long audio: No such file.*TMPDIR"):
            await client.resynthesize("/corpus/long-40.wav")


# The command line.


def test_units_are_in_the_lines_and_in_files_for_numpy(cli: Cli, sts: RunningServer) -> None:
    lines = recordings("a/1.wav", "b/2.flac", "fail-AUDIO_EMPTY.wav")
    cli.write("data.json", *lines)
    arguments = ("encode", "data.json", "-o", "units.jsonl", "--npz", "npz", "--registry", sts.registry)
    cli.run(*arguments, "--dedup", code=3)
    expected = {"units": [1, 2, 3], "durations": [2, 1, 1], "sts_model": MODEL}
    paths = [str(cli.folder / "npz" / name) for name in ("a/1.npz", "b/2.npz")]
    assert cli.read("units.jsonl") == [
        line | {"units_filepath": path} | expected for line, path in zip(lines[:2], paths, strict=True)
    ]
    with np.load(paths[1]) as arrays:
        assert (arrays["units"].tolist(), arrays["durations"].tolist()) == ([1, 2, 3], [2, 1, 1])
    assert [error["reason"] for error in cli.read("units.errors.jsonl")] == ["AUDIO_EMPTY"]
    assert files(cli.folder / "npz") == ["a/1.npz", "b/2.npz"]


def test_the_recordings_folders_are_mirrored_and_files_that_are_there_are_kept(
    cli: Cli, sts: RunningServer
) -> None:
    lines = recordings("a/1.wav", "a/b/2.flac", "fail-AUDIO_CORRUPT.wav")
    cli.write("data.json", *lines)
    (cli.folder / "out" / "a").mkdir(parents=True)
    (cli.folder / "out" / "a" / "1.wav").write_bytes(b"made before")
    arguments = ("resynthesize", "data.json", "-o", "out", "--registry", sts.registry)
    run = cli.run(*arguments, "--speaker", "ex01", "--style", "0", code=3)
    assert "1 that had theirs before" in run.stderr
    assert files(cli.folder / "out") == ["a/1.wav", "a/b/2.wav", "manifest.errors.jsonl", "manifest.json"]
    assert (cli.folder / "out" / "a" / "1.wav").read_bytes() == b"made before"
    assert read_wav(cli.folder / "out" / "a" / "b" / "2.wav")[1][::320] == [3277, 3277, 6553, 9830]
    first, second = cli.read("out/manifest.json")
    assert first == lines[0] | {"synthesized_filepath": str(cli.folder / "out/a/1.wav")}
    assert second == lines[1] | {
        "synthesized_filepath": str(cli.folder / "out/a/b/2.wav"),
        "synthesized_duration": SECONDS,
        "sts_model": MODEL,
    }
    cli.run(*arguments, "--force", code=3)
    assert read_wav(cli.folder / "out" / "a" / "1.wav")[0] == 16_000


def test_encoded_units_synthesize_to_what_resynthesis_makes(cli: Cli, sts: RunningServer) -> None:
    cli.write("data.json", *recordings("a.wav", "long-20.wav"))
    cli.run("encode", "data.json", "-o", "units.jsonl", "--dedup", "--registry", sts.registry)
    cli.run("synthesize", "units.jsonl", "-o", "one", "--registry", sts.registry)
    cli.run("resynthesize", "data.json", "-o", "other", "--registry", sts.registry)
    for name in ("a.wav", "long-20.wav"):
        assert (cli.folder / "one" / name).read_bytes() == (cli.folder / "other" / name).read_bytes()


def test_lines_without_units_are_quarantined_and_the_others_are_spoken(cli: Cli, sts: RunningServer) -> None:
    good = {"audio_filepath": "made-up/1", "units": [1, 2]}
    cli.write("units.jsonl", good, {"audio_filepath": "made-up/2", "units": "1 2"}, {"units": [1]})
    arguments = ("synthesize", "units.jsonl", "-o", "out", "--registry", sts.registry)
    cli.run(*arguments, "--predict-durations", code=3)
    assert files(cli.folder / "out") == ["1.wav", "manifest.errors.jsonl", "manifest.json"]
    reasons = [error["reason"] for error in cli.read("out/manifest.errors.jsonl")]
    assert reasons == ["BAD_UNITS", "MISSING_AUDIO_FILEPATH"]


def test_a_voice_that_the_server_lacks_ends_the_run_with_its_words(cli: Cli, sts: RunningServer) -> None:
    cli.write("data.json", *recordings("a.wav", "b.wav"))
    arguments = ("resynthesize", "data.json", "-o", "out", "--speaker", "ex09", "--registry", sts.registry)
    run = cli.run(*arguments, code=1)
    assert "no speaker 'ex09': it has ex01" in run.stderr
    assert files(cli.folder / "out") == []


def test_collisions_are_named_before_any_call(cli: Cli) -> None:
    cli.write("data.json", *recordings("a.wav", "b.wav", "a.flac"))
    run = cli.run("resynthesize", "data.json", "-o", "out", code=1)
    assert "lines 1 and 3 would both become a.wav" in run.stderr
    assert not (cli.folder / "out").exists()


def test_a_killed_run_goes_on_where_it_was(cli: Cli, sts: RunningServer) -> None:
    quick = [f"{number}.wav" for number in range(6)]
    slow = ["x/slow-3.wav", "y/slow-3.wav"]
    lines = recordings(slow[0], *quick, slow[1])
    cli.write("data.json", *lines)
    arguments = ("resynthesize", "data.json", "-o", "out", "--registry", sts.registry)
    process = cli.start(*arguments)
    wait_until(lambda: cli.count_lines("out/manifest.json.journal") == 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert files(cli.folder / "out") == [*quick, "manifest.json.journal"]
    made = {name: (cli.folder / "out" / name).stat().st_mtime_ns for name in quick}
    assert "6 settled by the run before this one" in cli.run(*arguments).stderr
    assert files(cli.folder / "out") == [*quick, "manifest.json", *slow]
    assert made == {name: (cli.folder / "out" / name).stat().st_mtime_ns for name in quick}
    assert [line["id"] for line in cli.read("out/manifest.json")] == list(range(8))


def test_tasks_of_an_array_share_a_folder_and_their_manifests_merge(cli: Cli, sts: RunningServer) -> None:
    lines = recordings("x/1.wav", "x/2.wav", "y/3.wav", "x/4.wav", "y/5.wav")
    cli.write("data.json", *lines)
    for task in range(2):
        arguments = ("resynthesize", "data.json", "-o", "out", "--tasks", "2", "--task-id", str(task))
        cli.run(*arguments, "--registry", sts.registry)
        # However few folders a share has, the root is that of the whole manifest.
        assert (cli.folder / "out" / "x").is_dir()
    cli.run("manifest", "merge", "out/manifest_task_*_of_2.json", "-o", "made.json")
    assert [line["id"] for line in cli.read("made.json")] == list(range(5))
    made = [Path(line["synthesized_filepath"]) for line in cli.read("made.json")]
    assert made == [(cli.folder / "out" / name["audio_filepath"][8:]) for name in lines]
    assert all(path.is_file() for path in made)
    run = cli.run("encode", "data.json", "-o", "out/manifest.json", "--tasks", "3", "--task-id", "0", code=1)
    assert "a run with 2 tasks, not 3" in run.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tasks", "2"), "go together"),
        (("--task-id", "0"), "go together"),
        (("--tasks", "2", "--task-id", "2"), "0 to 1"),
        (("--tasks", "0", "--task-id", "0"), "Invalid value for '--tasks'"),
    ],
)
def test_shares_that_are_none_are_wrong_usage(cli: Cli, options: tuple[str, ...], said: str) -> None:
    cli.write("data.json", *recordings("a.wav"))
    for command in ("encode", "resynthesize", "synthesize", "transcribe", "vad"):
        run = cli.run(command, "data.json", "-o", "out", *options, code=2, COLUMNS="200")
        assert said in run.stderr


def test_a_folder_that_cannot_be_made_is_told(cli: Cli) -> None:
    cli.write("data.json", *recordings("a.wav"))
    run = cli.run("resynthesize", "data.json", "-o", "data.json/out", code=1)
    assert "data.json/out cannot be made: Not a directory" in run.stderr


def test_a_file_that_cannot_be_written_ends_the_run_and_keeps_what_is_done(
    cli: Cli, sts: RunningServer
) -> None:
    cli.write("data.json", *recordings("a/1.wav", "b/2.wav"))
    (cli.folder / "out").mkdir()
    (cli.folder / "out" / "b").write_text("in the way")
    arguments: tuple[Any, ...] = ("resynthesize", "data.json", "-o", "out", "--registry", sts.registry)
    run = cli.run(*arguments, code=1)
    assert "b/2.wav cannot be written" in run.stderr
    (cli.folder / "out" / "b").unlink()
    cli.run(*arguments)
    assert files(cli.folder / "out") == ["a/1.wav", "b/2.wav", "manifest.json"]

"""``amela-client vad`` and ``servers`` with a real voice activity server."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from amela_client.client import AmelaClient
from numpy.typing import NDArray

from tests.conftest import RunningServer, StartServer, wait_until
from tests.integration.client.conftest import Cli, Line, calls, clips, of_manifest

RATE = 16_000


@pytest.fixture(scope="module")
def vad(start_module_server: StartServer) -> RunningServer:
    return start_module_server(["amela-vad", "--workers", "2", "--audio-root", "/"])


@pytest.fixture(scope="module")
def speech(examples: Path) -> NDArray[np.int16]:
    return np.concatenate(
        [soundfile.read(path, dtype="int16")[0] for path in sorted(examples.glob("*.flac"))]
    )


@pytest.fixture
def corpus(cli: Cli, speech: NDArray[np.int16], examples: Path) -> Path:
    """Make a folder as corpora are: nested, of several kinds, with what is no audio among it."""
    corpus = cli.folder / "corpus"
    (corpus / "day 2").mkdir(parents=True)
    shutil.copy(examples / "sense-and-sensibility-0880.flac", corpus / "a.flac")
    pause = np.zeros(RATE, np.int16)
    soundfile.write(
        corpus / "day 2" / "long.wav", np.concatenate([speech, pause, speech, pause, speech]), RATE
    )
    soundfile.write(corpus / "day 2" / "silence, mostly.wav", np.zeros(2 * RATE, np.int16), RATE)
    (corpus / "day 2" / "broken.wav").write_bytes(b"RIFF")
    (corpus / "notes.txt").write_text("not a recording")
    return corpus


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


async def test_a_folder_becomes_a_manifest_and_the_labs_table(
    cli: Cli, vad: RunningServer, corpus: Path
) -> None:
    run = cli.run("vad", "corpus", "-o", "vad.json", "--csv", "vad.csv", "--registry", vad.registry, code=3)

    lines = {line["audio_filepath"]: line for line in cli.read("vad.json")}
    names = [f"{corpus}/a.flac", f"{corpus}/day 2/long.wav", f"{corpus}/day 2/silence, mostly.wav"]
    assert list(lines) == names
    short, long, silence = lines.values()
    assert (short["duration"], silence["duration"]) == (2.99, 2.0)
    assert long["duration"] == pytest.approx(76.19, abs=0.05)
    assert [line["no_speech"] for line in lines.values()] == [False, False, True]
    assert [line["long_audio"] for line in lines.values()] == [False, True, False]
    async with AmelaClient(vad.registry) as client:
        found = await client.detect(names[1])
    assert [(run["start"], run["end"]) for run in long["segments"]] == [
        (round(start, 6), round(end, 6)) for start, end in found.segments
    ]
    assert long["split_points"] == pytest.approx(found.split_points)
    assert all(30 * index <= point <= 30 * index + 10 for index, point in enumerate(found.split_points, 1))
    assert found.split_points

    rows = table(cli.folder / "vad.csv")
    assert [row["audio_filepath"] for row in rows] == names
    assert [row["flagged_ns"] for row in rows] == ["False", "False", "True"]
    assert [row["flagged_1m"] for row in rows] == ["False", "True", "False"]
    assert [float(point) for point in rows[1]["splits"].split()] == long["split_points"]
    assert float(rows[1]["spch-ratio"]) == pytest.approx(found.statistics.speech_ratio, abs=1e-6)
    assert float(rows[2]["max-nospch"]) == 2.0

    (error,) = cli.read("vad.errors.jsonl")
    assert error["audio_filepath"] == f"{corpus}/day 2/broken.wav"
    assert "1 quarantined" in run.stderr
    assert cli.names() == ["corpus", "vad.csv", "vad.errors.jsonl", "vad.json"]


def test_a_recording_of_the_folder_that_is_left_out_is_told_though_all_others_are_done(
    cli: Cli, vad: RunningServer, examples: Path
) -> None:
    corpus = cli.folder / "corpus"
    corpus.mkdir()
    shutil.copy(examples / "sense-and-sensibility-0880.flac", corpus / "a.flac")
    (corpus / "loop.wav").symlink_to("loop.wav")
    run = cli.run("vad", "corpus", "-o", "vad.json", "--quiet", "--registry", vad.registry, code=3)
    assert [line["audio_filepath"] for line in cli.read("vad.json")] == [f"{corpus}/a.flac"]
    (told,) = run.stderr.splitlines()
    assert told.startswith(f"left out: {corpus}/loop.wav: ")
    assert cli.names() == ["corpus", "vad.json"]


def test_its_manifest_feeds_the_next_stage_from_anywhere(cli: Cli, vad: RunningServer, corpus: Path) -> None:
    relative: list[Line] = [{"audio_filepath": "corpus/a.flac", "speaker": "anna", "text_ref": "grüße"}]
    cli.write("data.json", *relative)
    (cli.folder / "results").mkdir()
    cli.run("vad", "data.json", "-o", "results/vad.json", "--registry", vad.registry)
    cli.run("vad", "results/vad.json", "-o", "again.json", "--registry", vad.registry)
    (line,) = cli.read("again.json")
    assert line["audio_filepath"] == f"{corpus}/a.flac"
    assert (line["speaker"], line["text_ref"], line["duration"]) == ("anna", "grüße", 2.99)
    assert cli.read("results/vad.json") == [line]


def test_options_of_segmentation_change_the_segments(cli: Cli, vad: RunningServer, corpus: Path) -> None:
    manifest = [{"audio_filepath": f"{corpus}/a.flac"}]
    cli.write("data.json", *manifest)

    def segments(*options: str) -> list[dict[str, float]]:
        cli.run("vad", "data.json", "-o", "vad.json", "--registry", vad.registry, *options)
        found: list[dict[str, float]] = cli.read("vad.json")[0]["segments"]
        return found

    plain = segments()
    assert len(plain) > 1
    assert len(segments("--merge-gap", "1")) == 1
    assert all(run["end"] - run["start"] >= 0.5 for run in segments("--min-speech", "0.5"))
    assert segments("--padding", "0.1")[0]["start"] == pytest.approx(plain[0]["start"] - 0.1)
    assert segments("--threshold", "1") == []


def test_a_channel_can_be_chosen(cli: Cli, vad: RunningServer, speech: NDArray[np.int16]) -> None:
    both = np.stack([speech[: 3 * RATE], np.zeros(3 * RATE, np.int16)], axis=1)
    soundfile.write(cli.folder / "stereo.wav", both, RATE)
    cli.write("data.json", {"audio_filepath": str(cli.folder / "stereo.wav")})
    silent = {}
    for channel in "01":
        options = ("--channel", channel, "--registry", vad.registry)
        cli.run("vad", "data.json", "-o", "vad.json", *options)
        silent[channel] = cli.read("vad.json")[0]["no_speech"]
    assert silent == {"0": False, "1": True}
    run = cli.run("vad", "data.json", "-o", "vad.json", "--channel", "2", "--registry", vad.registry, code=3)
    assert "1 AUDIO_NO_SUCH_CHANNEL" in run.stderr


def test_recordings_that_come_while_a_run_is_stopped_are_not_mixed_into_it(
    cli: Cli, vad: RunningServer, examples: Path
) -> None:
    corpus = cli.folder / "corpus"
    corpus.mkdir()
    sentence = (examples / "sense-and-sensibility-0880.flac").read_bytes()
    for index in range(200):
        (corpus / f"{index:03}.flac").write_bytes(sentence)
    run = ("vad", "corpus", "-o", "vad.json", "--registry", vad.registry)
    before = calls(vad)
    stopped = cli.start(*run)
    wait_until(lambda: calls(vad) > before + 3)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=30)
    assert stopped.returncode == 130
    assert f"amela-client vad corpus -o vad.json --registry {vad.registry}" in err

    (corpus / "late.flac").write_bytes(sentence)
    err = cli.run(*run, code=1).stderr
    assert "are not those that the stopped run of vad.json was about" in err
    cli.run("vad", "vad.json.recordings", *run[2:])
    assert len(cli.read("vad.json")) == 200

    for name in range(10, 200):
        (corpus / f"{name:03}.flac").unlink()
    cli.run(*run, "--restart")
    assert len(cli.read("vad.json")) == 11
    assert cli.names() == ["corpus", "vad.json"]


def test_servers_are_listed_for_people_and_for_programs(cli: Cli, vad: RunningServer) -> None:
    (vad.registry / "broken.json").write_text("{")
    shown = cli.run("servers", "--registry", vad.registry).stdout
    model = vad.registration["model"]
    for part in ("vad", vad.target, "serving", model["name"], model["fingerprint"], "cpu", "2 + 64"):
        assert part in shown
    assert "broken.json: skipped" in shown
    broken, found = json.loads(cli.run("servers", "--json", "--registry", vad.registry).stdout)
    assert (found["endpoint"], found["serving"], found["model"]["engine"]) == (vad.target, True, "ten-vad")
    assert "broken.json" in broken["problem"]
    (vad.registry / "broken.json").unlink()


def test_fields_of_the_manifest_come_out_untouched_and_in_order(cli: Cli, vad: RunningServer) -> None:
    manifest = [line | {"speaker": {"age": 1.50}, "tags": ["ä", None]} for line in clips(40, 0.5)]
    cli.write("data.json", *manifest)
    run = cli.run("vad", "data.json", "-o", "vad.json", "--registry", vad.registry)
    assert of_manifest(cli.read("vad.json"), manifest) == manifest
    assert run.stdout == ""
    assert "\x1b" not in run.stderr

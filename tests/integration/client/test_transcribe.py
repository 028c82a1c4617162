"""``amela-client transcribe`` through a real speech recogniser."""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from amela.asr.v1.asr_pb2 import TranscribeRequest
from amela_client.client import AmelaClient
from amela_client.errors import CallError
from amela_client.manifest import Entry, Manifest
from amela_client.run import run_manifest
from amela_client.stages import Transcription

from tests.conftest import RunningServer, StartServer
from tests.integration.client.conftest import Cli, Line, clips, of_manifest


@pytest.fixture(scope="module")
def asr(
    start_module_server: StartServer, examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    """Start a server that reads the examples and what tests write."""
    roots = ("--audio-root", str(examples), "--audio-root", str(tmp_path_factory.getbasetemp()))
    return start_module_server(["amela-asr", "--workers", "2", "--max-audio-seconds", "60", *roots])


def broken_lines(folder: Path, good: Line) -> dict[str, Line | bytes]:
    """Make lines that are each wrong in another way, by the reason that should be given."""

    def audio(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    flac = Path(good["audio_filepath"]).read_bytes()
    middle = len(flac) // 2
    flipped = flac[:middle] + bytes([flac[middle] ^ 1]) + flac[middle + 1 :]
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(folder / "long.wav", np.zeros(61 * 16_000, np.int16), 16_000)
    (folder / "folder.wav").mkdir()
    path = json.dumps(good["audio_filepath"]).encode()
    return {
        "BAD_JSON": b'{"audio_filepath": ' + path,
        "NOT_AN_OBJECT": path,
        "NOT_UTF8": b'{"audio_filepath": "/gr\xfc\xdfe.wav"}',
        "MISSING_AUDIO_FILEPATH": {"duration": 1.0},
        "EMPTY_AUDIO_FILEPATH": {"audio_filepath": ""},
        "BAD_PATH": {"audio_filepath": "/a\0b.wav"},
        "WRONG_TYPE": good | {"duration": "1.0"},
        "BAD_DURATION": b'{"audio_filepath": %b, "duration": NaN}' % path,
        "BAD_OFFSET": good | {"offset": -1},
        "DUPLICATE": good,
        "AUDIO_NOT_FOUND": {"audio_filepath": str(folder / "missing.wav")},
        "AUDIO_NOT_A_FILE": {"audio_filepath": str(folder / "folder.wav")},
        "AUDIO_EMPTY": {"audio_filepath": audio("empty.wav", b"")},
        "AUDIO_TRUNCATED": {"audio_filepath": audio("cut.flac", flac[:middle])},
        "AUDIO_CORRUPT": {"audio_filepath": audio("flipped.flac", flipped)},
        "AUDIO_UNSUPPORTED": {"audio_filepath": audio("notes.wav", b"Remember the milk.\n" * 50)},
        "AUDIO_NOT_FINITE": {"audio_filepath": str(folder / "nan.wav")},
        "AUDIO_TOO_LONG": {"audio_filepath": str(folder / "long.wav")},
        "AUDIO_OUT_OF_RANGE": good | {"offset": 1000.0},
        "PATH_FORBIDDEN": {"audio_filepath": "/etc/hostname"},
    }


def test_twenty_good_and_twenty_differently_broken_entries(cli: Cli, asr: RunningServer) -> None:
    good = clips(20, 0.6)
    broken = broken_lines(cli.folder, good[0])
    # Good, broken, good, …; the first good line comes before its duplicate.
    cli.write("data.json", *chain.from_iterable(zip(good, broken.values(), strict=True)))

    run = cli.run("transcribe", "data.json", "-o", "out.json", "--registry", asr.registry, code=3)

    lines = cli.read("out.json")
    assert of_manifest(lines, good) == good
    assert all(isinstance(line["text"], str) for line in lines)
    assert sum(bool(line["text"]) for line in lines) > 10
    errors = cli.read("out.errors.jsonl")
    assert {error["line"]: error["reason"] for error in errors} == dict(
        zip(range(2, 41, 2), broken, strict=True)
    )
    assert all(error["message"] for error in errors)
    for error in errors:
        if error["reason"].startswith("AUDIO") and "OUT_OF_RANGE" not in error["reason"]:
            assert Path(error["audio_filepath"]).name in error["message"], error
    assert "20 entries with results, 20 quarantined" in run.stderr
    assert asr.process.poll() is None
    assert cli.run("servers", "--registry", asr.registry).stdout.count(" serving ") == 1
    # Nothing is left but what was asked for.
    assert not (cli.folder / "out.json.journal").exists()


def test_text_words_pieces_and_model_are_in_the_lines_in_order(
    cli: Cli, asr: RunningServer, examples: Path
) -> None:
    manifest = [json.loads(line) for line in (examples / "data.json").read_text().splitlines()][1:3]
    (examples_link := cli.folder / "audio").symlink_to(examples)
    manifest = [
        line | {"audio_filepath": f"{examples_link.name}/{line['audio_filepath']}"} for line in manifest
    ]
    cli.write("data.json", *manifest)
    options = ("--words", "--segments", "--confidence")
    run = cli.run("transcribe", "data.json", *options, "--registry", asr.registry)
    lines = cli.read("data.transcribed.json")
    assert of_manifest(lines, manifest) == manifest
    assert "relative paths are taken against the manifest's folder" in run.stderr
    assert jiwer.wer([line["text_ref"] for line in manifest], [line["text"] for line in lines]) < 0.6
    for line in lines:
        assert " ".join(word["text"] for word in line["words"]) == line["text"]
        starts = [word["start"] for word in line["words"]]
        assert starts == sorted(starts)
        assert line["words"][-1]["end"] <= line["duration"]
        assert all(0 <= word["confidence"] <= 1 for word in line["words"])
        assert [piece["text"] for piece in line["text_segments"]] == [line["text"]]
        assert line["asr_model"] == {
            "engine": "pocketsphinx",
            "name": asr.registration["model"]["name"],
            "fingerprint": asr.registration["model"]["fingerprint"],
        }


def test_in_place_texts_are_filled_in_and_those_that_are_there_stay(cli: Cli, asr: RunningServer) -> None:
    first, second, third = clips(3, 0.8)
    lines = [first | {"text": "as it was"}, second, third | {"text": ""}]
    path = cli.write("data.json", *lines, b"{broken")
    before = path.read_bytes().splitlines()

    cli.run("transcribe", "data.json", "--in-place", "--registry", asr.registry, code=3)

    after = path.read_bytes().splitlines()
    assert [after[0], after[3]] == [before[0], before[3]]
    filled = [json.loads(line) for line in after[:3]]
    assert of_manifest(filled[1:2], lines[1:2]) == lines[1:2]
    assert all(line["asr_model"] for line in filled[1:])
    assert cli.names() == ["data.json", "data.transcribe.errors.jsonl"]

    # Given again, the command has only empty texts left to do; forced, all of them.
    forced = cli.run("transcribe", "data.json", "--in-place", "--force", "--registry", asr.registry, code=3)
    assert "3 entries with results" in forced.stderr
    assert json.loads(path.read_bytes().splitlines()[0])["text"] != "as it was"


def test_a_summary_for_programs_has_what_the_run_came_to(cli: Cli, asr: RunningServer) -> None:
    cli.write("data.json", *clips(2, 0.8), {"audio_filepath": "/etc/hostname"})
    run = cli.run("transcribe", "data.json", "-o", "out.json", "--json", "--registry", asr.registry, code=3)
    summary = json.loads(run.stdout)
    assert (summary["results"], summary["quarantined"]) == (2, {"PATH_FORBIDDEN": 1})
    assert summary["audio_seconds"] == pytest.approx(1.6, abs=0.01)
    assert [model["engine"] for model in summary["models"]] == ["pocketsphinx"]


@dataclass(frozen=True, kw_only=True)
class InKlingon(Transcription):
    """Asks for what no engine can do."""

    def request(self, entry: Entry) -> TranscribeRequest:
        request = super().request(entry)
        assert isinstance(request, TranscribeRequest)
        request.options.language = "tlh"
        return request


async def test_what_the_engine_cannot_do_ends_the_run_instead_of_failing_every_entry(
    cli: Cli, asr: RunningServer
) -> None:
    manifest = Manifest(cli.write("data.json", *clips(3, 0.8)))
    async with AmelaClient(asr.registry) as client:
        with pytest.raises(CallError, match="UNSUPPORTED_OPTION"):
            await run_manifest(client, InKlingon(), manifest, cli.folder / "out.json")
    assert cli.names() == ["data.json"]


@pytest.mark.parametrize(
    ("option", "value"), [("--language", "fr"), ("--prompt", "Say it again:"), ("--max-new-tokens", "9")]
)
def test_an_option_that_the_model_does_not_take_ends_the_run_with_the_servers_words(
    cli: Cli, asr: RunningServer, option: str, value: str
) -> None:
    cli.write("data.json", *clips(2, 0.8))
    run = cli.run("transcribe", "data.json", option, value, "--registry", asr.registry, code=1)
    assert "UNSUPPORTED_OPTION" in run.stderr
    assert cli.names() == ["data.json"]

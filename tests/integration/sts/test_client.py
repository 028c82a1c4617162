"""The client's S2S commands against a real `amela-sts` with a tiny model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ...conftest import RunningServer, StartServer
from ...requirement import absent

pytestmark = pytest.mark.skipif(
    bool(missing := absent("sts", "typer", "rich", "jiwer", "amela_client")), reason=str(missing)
)

if not missing:
    from amela_client.sync import SyncAmelaClient

    from tests.integration.client.conftest import Cli, cli, clips  # noqa: F401 - a fixture

HOP = 320


@pytest.fixture(scope="module")
def server(tiny: Path, start_module_server: StartServer) -> RunningServer:
    command = [
        "amela-sts",
        "--trust",
        "--device",
        "cpu",
        "--audio-root",
        "/",
        "--model",
        str(tiny / "tiny.toml"),
    ]
    return start_module_server(command)


def test_units_synthesize_to_exactly_what_resynthesis_makes(cli: "Cli", server: RunningServer) -> None:
    lines = clips(6, 1.3)
    missing = Path(lines[0]["audio_filepath"]).with_name("missing.wav")
    cli.write("data.json", *lines, {"audio_filepath": str(missing)})
    found = ("--registry", server.registry)
    voice = ("--speaker", "ex03", "--style", "2")
    cli.run("encode", "data.json", "-o", "units.jsonl", "--dedup", *found, code=3)
    cli.run("synthesize", "units.jsonl", "-o", "one", *voice, *found)
    cli.run("resynthesize", "data.json", "-o", "other", *voice, *found, code=3)
    lines = cli.read("units.jsonl")
    assert len(lines) == 6
    for line, made in zip(lines, cli.read("one/manifest.json"), strict=True):
        assert len(line["units"]) == len(line["durations"]) <= sum(line["durations"])
        path = Path(made["synthesized_filepath"])
        samples, rate = soundfile.read(path)
        assert (len(samples), rate) == (sum(line["durations"]) * HOP, 16_000)
        assert np.ptp(samples) > 0
        assert path.read_bytes() == (cli.folder / "other" / path.relative_to(cli.folder / "one")).read_bytes()
    assert [error["reason"] for error in cli.read("other/manifest.errors.jsonl")] == ["AUDIO_NOT_FOUND"]


def test_a_voice_that_is_not_there_ends_the_run(cli: "Cli", server: RunningServer) -> None:
    cli.write("data.json", *clips(2))
    arguments = ("resynthesize", "data.json", "-o", "out", "--registry", server.registry)
    assert "no speaker 'nobody': it has ex01" in cli.run(*arguments, "--speaker", "nobody", code=1).stderr
    assert "no style 9" in cli.run(*arguments, "--style", "9", code=1).stderr


def test_features_belong_to_the_units(server: RunningServer) -> None:
    (clip,) = clips(1)
    with SyncAmelaClient(server.registry) as client:
        audio, offset = clip["audio_filepath"], clip["offset"]
        units = client.encode(audio, start=offset, duration=1.0, deduplicate=True, dense_features=True)
    features = np.asarray(units.dense_features).reshape(-1, units.feature_dim)
    assert len(features) == sum(units.durations)
    assert np.isfinite(features).all()
    assert units.audio_seconds == 1.0

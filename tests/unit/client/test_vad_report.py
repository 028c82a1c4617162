import csv
import json
from pathlib import Path

import pytest
from amela_client.errors import MergeError
from amela_client.results import Model, SpeechSegment, SpeechStatistics, VoiceActivity
from amela_client.vad_report import CSV_COLUMNS, csv_row, manifest_fields, write_csv
from hypothesis import given
from hypothesis import strategies as st

FOUND = VoiceActivity(
    segments=(SpeechSegment(0.016 * 3, 1.2), SpeechSegment(2.0, 64.9)),
    statistics=SpeechStatistics(62.9, 1.152, 32.026, 0.8, 0.048, 0.424, 0.986954),
    audio_seconds=64.900000004,
    no_speech=False,
    long_audio=True,
    split_points=(1.6, 33.25),
    frame_probabilities=None,
    model=Model("ten-vad", "ten-vad 1", "0123456789abcdef", "cpu", ()),
)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(
    lambda name: f"/{name}"
)


def manifest_of(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_line_gains_segments_split_points_flags_and_statistics() -> None:
    assert manifest_fields(FOUND) == {
        "segments": [{"start": 0.048, "end": 1.2}, {"start": 2.0, "end": 64.9}],
        "split_points": [1.6, 33.25],
        "no_speech": False,
        "long_audio": True,
        "speech_statistics": {
            "duration": 64.9,
            "max_speech": 62.9,
            "min_speech": 1.152,
            "mean_speech": 32.026,
            "max_nonspeech": 0.8,
            "min_nonspeech": 0.048,
            "mean_nonspeech": 0.424,
            "speech_ratio": 0.986954,
        },
    }


def test_the_table_has_the_columns_of_the_lab() -> None:
    assert ",".join(CSV_COLUMNS) == (
        "audio_filepath,duration,max-spoken,min-spoken,avg-spoken,max-nospch,min-nospch,avg-nospch,"
        "spch-ratio,flagged_ns,flagged_1m,splits"
    )
    row = csv_row({"audio_filepath": "/a.wav", **manifest_fields(FOUND)})
    assert dict(zip(CSV_COLUMNS, row, strict=True)) == {
        "audio_filepath": "/a.wav",
        "duration": 64.9,
        "max-spoken": 62.9,
        "min-spoken": 1.152,
        "avg-spoken": 32.026,
        "max-nospch": 0.8,
        "min-nospch": 0.048,
        "avg-nospch": 0.424,
        "spch-ratio": 0.986954,
        "flagged_ns": False,
        "flagged_1m": True,
        "splits": "1.6 33.25",
    }


@given(st.lists(paths, max_size=5))
def test_whatever_a_file_is_called_it_is_one_field_of_one_row(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("report")
    lines = [{"audio_filepath": name, **manifest_fields(FOUND)} for name in names]
    write_csv(manifest_of(folder / "vad.json", *lines), folder / "vad.csv")
    with (folder / "vad.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["audio_filepath", *names]
    assert {len(row) for row in rows} == {12}


def test_tables_larger_than_what_is_kept_in_memory_are_whole(tmp_path: Path) -> None:
    lines = [{"audio_filepath": f"/{index}.wav", **manifest_fields(FOUND)} for index in range(2000)]
    write_csv(manifest_of(tmp_path / "vad.json", *lines), tmp_path / "vad.csv")
    with (tmp_path / "vad.csv").open(newline="") as file:
        assert [row["audio_filepath"] for row in csv.DictReader(file)] == [
            f"/{index}.wav" for index in range(2000)
        ]


def test_a_table_that_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "vad.json", {"audio_filepath": "/a.wav", **manifest_fields(FOUND)})
    with pytest.raises(MergeError, match=r"missing/vad\.csv cannot be written: No such file"):
        write_csv(manifest, tmp_path / "missing" / "vad.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["vad.json"]

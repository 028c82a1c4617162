"""What voice activity looks like in a manifest, and in the lab's table."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from amela_client.atomic_file import replacing
from amela_client.errors import MergeError
from amela_client.results import VoiceActivity

CSV_COLUMNS = (
    "audio_filepath",
    "duration",
    "max-spoken",
    "min-spoken",
    "avg-spoken",
    "max-nospch",
    "min-nospch",
    "avg-nospch",
    "spch-ratio",
    "flagged_ns",
    "flagged_1m",
    "splits",
)
"""Columns of the lab's table; times in seconds, split points separated by spaces."""

_STATISTICS = (
    "max_speech",
    "min_speech",
    "mean_speech",
    "max_nonspeech",
    "min_nonspeech",
    "mean_nonspeech",
    "speech_ratio",
)


def manifest_fields(found: VoiceActivity) -> dict[str, object]:
    """Return what a manifest line gains: segments, split points, flags and statistics, times in seconds.

    ``speech_statistics`` also holds the ``duration`` that was measured.
    """
    return {
        "segments": [{"start": rounded(start), "end": rounded(end)} for start, end in found.segments],
        "split_points": [rounded(point) for point in found.split_points],
        "no_speech": found.no_speech,
        "long_audio": found.long_audio,
        "speech_statistics": {"duration": rounded(found.audio_seconds)}
        | {name: rounded(value) for name, value in found.statistics._asdict().items()},
    }


def csv_row(line: Mapping[str, Any]) -> list[object]:
    """Return the table's row for a manifest line with `manifest_fields`."""
    statistics = line["speech_statistics"]
    return [
        line["audio_filepath"],
        statistics["duration"],
        *(statistics[name] for name in _STATISTICS),
        line["no_speech"],
        line["long_audio"],
        " ".join(map(str, line["split_points"])),
    ]


def write_csv(manifest: Path, table: Path) -> None:
    """Write the lab's table for a manifest that `manifest_fields` went into, whole or not at all.

    Raises
    ------
    MergeError
        The table cannot be written, or the lines are not results of vad.
    """
    try:
        with manifest.open("rb") as lines, replacing(table) as file:
            file.write(_csv_line(CSV_COLUMNS))
            for line in lines:
                file.write(_csv_line(csv_row(json.loads(line))))
    except OSError as error:
        raise MergeError(
            f"{table} cannot be written: {error.strerror or error}. {manifest} is complete and has all that"
            " it would hold"
        ) from None
    except KeyError as error:
        raise MergeError(
            f"{manifest} has a line without {error}: only results of vad make a table. {table} is not written"
        ) from None


def _csv_line(values: Iterable[object]) -> bytes:
    text = io.StringIO()
    # With its default line end the writer quotes carriage returns too.
    csv.writer(text).writerow(values)
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def rounded(seconds: float) -> float:
    """Round a time to a microsecond."""
    # That is finer than any sample, and keeps sums of hops readable.
    return round(seconds, 6)

"""Recordings made of the example sentences."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

RATE = 16_000


@dataclass(frozen=True)
class Sentence:
    """One example: real read speech and what is said in it."""

    path: Path
    text: str
    samples: NDArray[np.float32]

    @property
    def duration(self) -> float:
        return len(self.samples) / RATE


@dataclass(frozen=True)
class Recording:
    """Sentences one after the other, and where each begins, in seconds."""

    path: Path
    sentences: list[Sentence]
    starts: list[float]
    duration: float


@pytest.fixture(scope="session")
def sentences(examples: Path) -> list[Sentence]:
    entries = [json.loads(line) for line in (examples / "data.json").read_text().splitlines()]
    return [
        Sentence(
            path := examples / entry["audio_filepath"],
            entry["text_ref"],
            soundfile.read(path, dtype="float32")[0],
        )
        for entry in entries
    ]


def record(path: Path, sentences: list[Sentence], pause: float) -> Recording:
    """Write the sentences to a WAV with so many seconds of silence around each."""
    silence = np.zeros(round(pause * RATE), np.float32)
    parts, starts = [silence], []
    for sentence in sentences:
        starts.append(sum(map(len, parts)) / RATE)
        parts += [sentence.samples, silence]
    samples = np.concatenate(parts)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return Recording(path, sentences, starts, len(samples) / RATE)

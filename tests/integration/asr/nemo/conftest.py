"""The tiny models and the clips that they were made to understand."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from ....requirement import absent, skipping

pytest_pycollect_makemodule = skipping(absent("nemo", "nemo", "torch", "peft"))

MODELS = Path(__file__).parents[3] / "models" / "nemo_tiny"
RATE = 16_000


@dataclass(frozen=True)
class Command:
    """A spoken command that no model has learnt."""

    path: Path
    text: str
    samples: NDArray[np.float32]

    @property
    def duration(self) -> float:
        return len(self.samples) / RATE


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the tiny checkpoints."""
    return MODELS


@pytest.fixture(scope="session")
def commands() -> list[Command]:
    entries = [json.loads(line) for line in (MODELS / "clips.json").read_text().splitlines()]
    return [
        Command(
            path := MODELS / entry["audio_filepath"],
            entry["text_ref"],
            soundfile.read(path, dtype="float32")[0],
        )
        for entry in entries
    ]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make checkpoints of the families that are too many to keep."""
    from ....models.nemo_tiny import families

    return families.make_all(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session", params=["ctc-char.nemo", "ctc-bpe.nemo", "tdt.nemo", "salm"])
def model_name(request: pytest.FixtureRequest) -> str:
    name: Any = request.param
    return str(name)

import re

import numpy as np
import pytest
from amela_common.errors import ConfigError
from amela_common.voice import detector
from amela_common.voice.detector import Detector
from amela_vad.engine import canary, model
from numpy.typing import NDArray


def test_the_model_is_named_with_version_and_fingerprint() -> None:
    found = model()
    assert re.fullmatch(r"ten-vad \d+\.\d+.*", found.name)
    assert found.fingerprint == detector.fingerprint()
    assert (found.engine, found.device) == ("ten-vad", "cpu")


def test_the_canary_passes_here() -> None:
    canary()


@pytest.mark.parametrize(
    ("answer", "words"), [(np.nan, "nan"), (1.5, "1.5"), (-0.1, "-0.1"), (0.9, "silence for speech")]
)
def test_the_canary_refuses_what_no_detector_answers(
    monkeypatch: pytest.MonkeyPatch, answer: float, words: str
) -> None:
    def run(_self: Detector, _samples: object, frames: int) -> NDArray[np.float32]:
        return np.full(frames, answer, np.float32)

    monkeypatch.setattr(Detector, "_run", run)
    with pytest.raises(ConfigError, match=words):
        canary()

"""What no model is given."""

import numpy as np
import pytest
from amela_asr.engines.screening import check_clip, is_silent
from amela_common.audio import Clip
from amela_common.errors import RequestError

RATE = 16_000
NOISE = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)


def clip(samples: object) -> Clip:
    return Clip(np.asarray(samples, np.float32), RATE)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "AUDIO_EMPTY"),
        ([0.5], "AUDIO_TOO_SHORT"),
        (NOISE[:1599], "AUDIO_TOO_SHORT"),
        (np.where(np.arange(RATE) == 77, np.nan, NOISE), "AUDIO_NOT_FINITE"),
        (np.where(np.arange(RATE) == 77, -np.inf, NOISE), "AUDIO_NOT_FINITE"),
        (NOISE * 1e20, "AUDIO_NOT_FINITE"),
        (np.where(np.arange(RATE) == 77, -32768, NOISE), "AUDIO_NOT_FINITE"),
    ],
)
def test_what_is_no_audio_is_refused(samples: object, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_clip(clip(samples))
    assert refused.value.reason == reason


def test_samples_far_beyond_full_scale_are_told_with_their_peak() -> None:
    with pytest.raises(RequestError, match=r"reach 32768 times full scale: write floats between -1 and 1"):
        check_clip(clip(np.where(np.arange(RATE) == 77, -32768, NOISE)))


@pytest.mark.parametrize("samples", [NOISE[:1600], NOISE, NOISE * 100, NOISE * 10_000 / NOISE.max()])
def test_audio_passes(samples: object) -> None:
    check_clip(clip(samples))
    assert not is_silent(clip(samples))


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 0.3, 1e6])
def test_a_level_that_stands_still_is_silence(level: float) -> None:
    assert is_silent(clip(np.full(RATE, level)))


@pytest.mark.parametrize(("amplitude", "silent"), [(1e-5, True), (1e-3, False)])
def test_silence_ends_at_80_db_below_full_scale(amplitude: float, silent: bool) -> None:
    tone = amplitude * np.sin(np.arange(RATE) / 10)

    assert is_silent(clip(tone)) == silent
    assert is_silent(clip(0.5 + tone)) == silent

"""What no model should hear: it would answer with words that nobody said."""

import numpy as np
from amela_common.audio import Clip
from amela_common.errors import RequestError

SHORTEST_SECONDS = 0.1
# Below -80 dBFS there is nothing but the rounding of 16-bit audio.
SILENCE_RMS = 1e-4
# Floats may exceed full scale, but not by 80 dB: such samples are on another scale, or broken.
HIGHEST_PEAK = 1e4


def check_clip(clip: Clip) -> None:
    """Refuse audio that is not fit to be recognised.

    Raises
    ------
    RequestError
        AUDIO_EMPTY, AUDIO_TOO_SHORT or AUDIO_NOT_FINITE.
    """
    if not len(clip.samples):
        raise RequestError("AUDIO_EMPTY", "there is no sample in this audio")
    if clip.duration < SHORTEST_SECONDS:
        raise RequestError(
            "AUDIO_TOO_SHORT",
            f"{clip.duration * 1000:.0f} ms of audio: nothing below"
            f" {SHORTEST_SECONDS * 1000:.0f} ms can be recognised",
        )
    bad = len(clip.samples) - int(np.count_nonzero(np.isfinite(clip.samples)))
    if bad:
        raise RequestError("AUDIO_NOT_FINITE", f"{bad} of {len(clip.samples)} samples are NaN or infinite")
    peak = float(np.abs(clip.samples).max())
    if peak > HIGHEST_PEAK:
        raise RequestError(
            "AUDIO_NOT_FINITE",
            f"its samples reach {peak:g} times full scale: write floats between -1 and 1",
        )


def is_silent(clip: Clip) -> bool:
    """Whether the audio stands still: digital silence, or an input stuck at any level."""
    return float(np.std(clip.samples, dtype=np.float64)) < SILENCE_RMS

"""TEN-VAD as this service presents it: its name, and the proof that it works here."""

from importlib.metadata import version

import numpy as np
from amela.common.v1.server_pb2 import Model
from amela_common.errors import ConfigError
from amela_common.voice import detector
from amela_common.voice.detector import SAMPLE_RATE, Detector


def model() -> Model:
    """Say what detects."""
    return Model(
        engine="ten-vad",
        name=f"ten-vad {version('ten-vad')}",
        fingerprint=detector.fingerprint(),
        device="cpu",
    )


def canary() -> None:
    """Run a second of silence and a second of noise through the detector.

    Raises
    ------
    ConfigError
        If the library cannot be loaded, or answers with what no detector would.
    """
    noise = np.random.default_rng(0).normal(scale=0.1, size=SAMPLE_RATE).astype(np.float32)
    for name, samples in (("silence", np.zeros_like(noise)), ("noise", noise)):
        with Detector() as running:
            probabilities = running.process(samples)
        # NaN fails the comparison as well.
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ConfigError(f"TEN-VAD answers {name} with {probabilities}: reinstall ten-vad")
        if name == "silence" and (probabilities >= 0.5).any():
            raise ConfigError(f"TEN-VAD takes silence for speech ({probabilities.max()}): reinstall ten-vad")

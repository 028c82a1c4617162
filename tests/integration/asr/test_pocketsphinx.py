"""The embedded engine on real speech."""

import numpy as np
import pytest
from amela_asr.engine import Recognition
from amela_asr.engines.pocketsphinx import PocketsphinxEngine, Recognizer
from amela_common.errors import ConfigError
from numpy.typing import NDArray

from .conftest import RATE, Sentence


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


def recognize(recognizer: Recognizer, samples: NDArray[np.float32]) -> Recognition:
    [recognition] = recognizer(samples)
    return recognition


def test_a_clip_is_heard_the_same_whatever_came_before_it(
    recognizer: Recognizer, sentences: list[Sentence]
) -> None:
    clip = sentences[1].samples[round(0.15 * RATE) : round(2.97 * RATE)]
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)

    first = recognize(Recognizer(), clip)
    recognize(recognizer, noise)
    recognize(recognizer, sentences[4].samples)

    assert recognize(recognizer, clip) == first
    assert first.text


@pytest.mark.parametrize("length", [0, 1, 159, 1000])
def test_a_clip_too_short_for_a_word_is_an_empty_text(recognizer: Recognizer, length: int) -> None:
    assert recognize(recognizer, np.full(length, 0.1, np.float32)).text == ""


def test_samples_beyond_full_scale_are_clipped_not_wrapped(
    recognizer: Recognizer, sentences: list[Sentence]
) -> None:
    samples = sentences[1].samples[:RATE]
    loud = 4 * samples / np.abs(samples).max()

    assert recognize(recognizer, loud) == recognize(recognizer, np.clip(loud, -1, 1))


def test_a_model_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="--model large"):
        PocketsphinxEngine("large", 1, on_restart=lambda: None)


async def test_equal_engines_have_equal_fingerprints() -> None:
    fingerprints = []
    for model in (None, "en-us"):
        engine = PocketsphinxEngine(model, 1, on_restart=lambda: None)
        try:
            await engine.load()
            fingerprints.append(engine.fingerprint)
        finally:
            await engine.close()

    assert fingerprints[0] == fingerprints[1] != ""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import ten_vad
from amela_common.errors import ConfigError
from amela_common.voice import detector
from amela_common.voice.detector import HOP_SAMPLES, Detector, fingerprint
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

SPEECH: NDArray[np.int16] = soundfile.read(
    Path(__file__).parents[4] / "examples/sense-and-sensibility-0880.flac", dtype="int16"
)[0]


def detect(samples: NDArray[np.int16], chunk: int | None = None) -> NDArray[np.float32]:
    chunk = chunk or len(samples)
    with Detector() as running:
        parts = [
            running.process_int16(samples[start : start + chunk]) for start in range(0, len(samples), chunk)
        ]
        return np.concatenate([*parts, running.finish()])


WHOLE = detect(SPEECH)


def test_probabilities_are_those_of_the_librarys_own_loop() -> None:
    theirs = ten_vad.TenVad(HOP_SAMPLES)
    frames = SPEECH[: len(SPEECH) // HOP_SAMPLES * HOP_SAMPLES].reshape(-1, HOP_SAMPLES)
    expected = np.array([theirs.process(frame)[0] for frame in frames], np.float32)
    assert np.array_equal(WHOLE[: len(expected)], expected)


def test_speech_is_told_from_silence() -> None:
    assert WHOLE.max() > 0.9
    assert detect(np.zeros(16000, np.int16)).max() < 0.5


def test_a_rest_at_the_end_is_a_frame_filled_up_with_silence() -> None:
    assert len(SPEECH) % HOP_SAMPLES
    filled = np.pad(SPEECH, (0, -len(SPEECH) % HOP_SAMPLES))
    assert np.array_equal(WHOLE, detect(filled))


def test_no_samples_give_no_frames() -> None:
    assert detect(SPEECH[:0], chunk=1).shape == (0,)


@settings(max_examples=20)
@given(st.integers(1, 3000))
def test_the_size_of_chunks_does_not_matter(chunk: int) -> None:
    assert np.array_equal(detect(SPEECH[:8000], chunk), detect(SPEECH[:8000]))


def test_float_samples_give_what_their_int16_gives() -> None:
    with Detector() as running:
        probabilities = [running.process(SPEECH.astype(np.float32) / 32768), running.finish()]
    assert np.array_equal(np.concatenate(probabilities), WHOLE)


def test_float_samples_beyond_full_scale_are_clipped() -> None:
    loud = np.array([4.0, -4.0, 1.0, -1.0] * HOP_SAMPLES, np.float32)
    clipped = np.array([32767, -32768, 32767, -32768] * HOP_SAMPLES, np.int16)
    with Detector() as running:
        assert np.array_equal(running.process(loud), detect(clipped))


def test_the_callers_samples_are_left_as_they_are() -> None:
    samples = np.full(1000, 0.3, np.float32)
    with Detector() as running:
        running.process(samples)
    assert (samples == np.float32(0.3)).all()


def test_samples_may_be_a_view_with_gaps() -> None:
    assert np.array_equal(detect(np.repeat(SPEECH, 2)[::2]), WHOLE)


def test_a_recording_does_not_depend_on_the_one_before() -> None:
    detect(np.random.default_rng(0).integers(-20000, 20000, 50000).astype(np.int16))
    assert np.array_equal(detect(SPEECH), WHOLE)


def test_passes_that_began_thirty_seconds_apart_agree_once_both_have_forgotten() -> None:
    half_minute = 1875
    samples = np.resize(SPEECH, 3 * half_minute * HOP_SAMPLES)
    later = detect(samples[half_minute * HOP_SAMPLES :])
    whole = detect(samples)[half_minute:]
    assert np.array_equal(later[half_minute:], whole[half_minute:])
    assert not np.array_equal(later[:half_minute], whole[:half_minute])


def test_detectors_in_several_threads_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as threads:
        assert all(np.array_equal(found, WHOLE) for found in threads.map(detect, [SPEECH] * 16))


def test_a_closed_detector_says_so() -> None:
    with Detector() as running:
        pass
    running.close()
    with pytest.raises(ValueError, match="closed"):
        running.process_int16(SPEECH)


def test_the_fingerprint_is_sixteen_digits_and_follows_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert fingerprint() == before
    other = tmp_path / "libten_vad.so"
    other.write_bytes(b"another build")
    monkeypatch.setattr(detector, "_library_path", lambda: other)
    assert fingerprint() != before


@pytest.fixture
def fresh_library() -> Iterator[None]:
    detector._load.cache_clear()
    yield
    detector._load.cache_clear()


@pytest.mark.usefixtures("fresh_library")
def test_a_library_that_cannot_be_loaded_is_a_configuration_error_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "libten_vad.so"
    broken.write_bytes(b"\x7fELF and nothing more")
    monkeypatch.setattr(detector, "_library_path", lambda: broken)
    with pytest.raises(ConfigError, match=r"libten_vad\.so .* libc\+\+1"):
        Detector()


def test_a_missing_package_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip install ten-vad"):
        fingerprint()

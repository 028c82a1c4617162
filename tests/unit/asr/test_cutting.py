"""The worker's side of the front: recordings in files to plans and clips."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import soundfile
from amela_asr.cutting import Cut, Cutter, Plan, Survey
from amela_common.audio import AudioLimits, AudioSource, Clip
from amela_common.errors import RequestError
from amela_common.pool import CHECKPOINT
from amela_common.voice.pieces import Piece
from numpy.typing import NDArray

RATE = 16_000
Write = Callable[[NDArray[np.float32]], AudioSource]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(samples: NDArray[np.float32]) -> AudioSource:
        path = tmp_path / "recording.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        return AudioSource(path=str(path))

    return write


@pytest.fixture
def cutter(tmp_path: Path) -> Cutter:
    return Cutter(AudioLimits(roots=(str(tmp_path),)), RATE, max_piece=30.0)


@pytest.fixture(scope="module")
def speech(examples: Path) -> NDArray[np.float32]:
    """Return the five sentences, 2 s of silence around each."""
    pause = np.zeros(2 * RATE, np.float32)
    parts = [pause]
    for path in sorted(examples.glob("*.flac")):
        parts += [soundfile.read(path, dtype="float32")[0], pause]
    return np.concatenate(parts)


def items(cutter: Cutter, request: Survey | Cut) -> list[object]:
    return [item for item in cutter(request) if item is not CHECKPOINT]


def survey(cutter: Cutter, source: AudioSource, at_most: float | None = None) -> Plan:
    [plan] = items(cutter, Survey(source, at_most))
    assert isinstance(plan, Plan)
    return plan


def cut(cutter: Cutter, source: AudioSource, plan: Plan) -> list[Clip]:
    clips = items(cutter, Cut(source, plan.pieces))
    assert all(isinstance(clip, Clip) for clip in clips)
    return cast(list[Clip], clips)


def test_each_sentence_becomes_a_piece_of_its_own(
    cutter: Cutter, write: Write, speech: NDArray[np.float32]
) -> None:
    plan = survey(cutter, write(speech))

    assert plan.duration == pytest.approx(len(speech) / RATE)
    assert len(plan.pieces) >= 5
    assert 0.5 * plan.duration < plan.speech < sum(piece.duration for piece in plan.pieces)


def test_a_short_recording_comes_with_its_clips(
    cutter: Cutter, write: Write, speech: NDArray[np.float32]
) -> None:
    plan = survey(cutter, write(speech), at_most=120)

    assert plan.clips is not None
    for piece, clip in zip(plan.pieces, plan.clips, strict=True):
        start, end = round(piece.start * RATE), round(piece.end * RATE)
        np.testing.assert_array_equal(clip.samples, speech[start:end])


def test_clips_of_the_second_pass_are_those_of_the_first(
    cutter: Cutter, write: Write, speech: NDArray[np.float32]
) -> None:
    source = write(speech)
    plan = survey(cutter, source, at_most=120)
    clips = cut(cutter, source, plan)

    assert plan.clips is not None
    for clip, kept in zip(clips, plan.clips, strict=True):
        np.testing.assert_array_equal(clip.samples, kept.samples)


def test_pieces_of_a_stretch_count_from_where_it_starts(
    cutter: Cutter, write: Write, speech: NDArray[np.float32]
) -> None:
    whole = write(speech)
    stretch = AudioSource(path=whole.path, start=10.0, duration=12.0)
    plan = survey(cutter, stretch)
    clips = cut(cutter, stretch, plan)

    assert plan.duration == pytest.approx(12.0)
    first = round((10.0 + plan.pieces[0].start) * RATE)
    np.testing.assert_array_equal(clips[0].samples, speech[first : first + len(clips[0].samples)])


def test_a_recording_longer_than_asked_for_is_no_plan(
    cutter: Cutter, write: Write, speech: NDArray[np.float32]
) -> None:
    source = write(speech)

    assert items(cutter, Survey(source, at_most=10)) == [None]
    assert items(cutter, Survey(source, at_most=len(speech) / RATE)) != [None]


def test_a_cut_can_be_stopped_long_before_the_first_clip(cutter: Cutter, write: Write) -> None:
    source = write(np.zeros(120 * RATE, np.float32))
    cutting = iter(cutter(Cut(source, (Piece(110, 111),))))

    assert [next(cutting) for _ in range(3)] == [CHECKPOINT] * 3


def test_no_piece_is_longer_than_the_engine_takes(
    tmp_path: Path, write: Write, speech: NDArray[np.float32]
) -> None:
    cutter = Cutter(AudioLimits(roots=(str(tmp_path),)), RATE, max_piece=5.0)

    assert all(piece.duration <= 5.0001 for piece in survey(cutter, write(speech)).pieces)


def test_clips_have_the_rate_that_the_engine_takes(
    tmp_path: Path, write: Write, speech: NDArray[np.float32]
) -> None:
    cutter = Cutter(AudioLimits(roots=(str(tmp_path),)), 8000, max_piece=30.0)
    plan = survey(cutter, write(speech), at_most=120)

    assert plan.clips is not None
    for piece, clip in zip(plan.pieces, plan.clips, strict=True):
        assert clip.sample_rate == 8000
        assert clip.duration == pytest.approx(piece.duration, abs=0.001)


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_silence_has_no_pieces(cutter: Cutter, write: Write, level: float) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 5 * RATE).astype(np.float32)
    plan = survey(cutter, write((level * noise).astype(np.float32)), at_most=120)

    assert (plan.pieces, plan.clips, plan.speech) == ((), (), 0)
    assert plan.duration == 5


def test_a_single_sample_is_silence(cutter: Cutter, write: Write) -> None:
    assert survey(cutter, write(np.ones(1, np.float32)), at_most=120).pieces == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused_wherever_they_are(
    cutter: Cutter, write: Write, speech: NDArray[np.float32], bad: float
) -> None:
    speech = speech.copy()
    speech[-1] = bad

    with pytest.raises(RequestError) as refused:
        survey(cutter, write(speech))

    assert refused.value.reason == "AUDIO_NOT_FINITE"


def test_what_lies_outside_the_roots_is_refused_in_both_passes(cutter: Cutter, examples: Path) -> None:
    source = AudioSource(path=str(next(examples.glob("*.flac"))))

    for request in (Survey(source), Cut(source, (Piece(0.0, 1.0),))):
        with pytest.raises(RequestError) as refused:
            items(cutter, request)
        assert refused.value.reason == "PATH_FORBIDDEN"

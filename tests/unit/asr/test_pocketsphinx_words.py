"""From PocketSphinx's segmentation to words."""

from typing import NamedTuple

import pytest
from amela_asr.engine import Recognition, Word
from amela_asr.engines.pocketsphinx import recognition_of


class Segment(NamedTuple):
    """The attributes of `pocketsphinx.Segment` that count, which only a decoder can make."""

    word: str
    start_frame: int
    end_frame: int
    prob: float = 0.5


def test_markers_silence_and_noise_are_no_words() -> None:
    heard = recognition_of(
        [
            Segment("<s>", 0, 19),
            Segment("he", 20, 33),
            Segment("<sil>", 34, 40),
            Segment("[NOISE]", 41, 50),
            Segment("was", 51, 60),
            Segment("[SPEECH]", 61, 70),
            Segment("</s>", 71, 90),
        ]
    )

    assert heard.text == "he was"


@pytest.mark.parametrize(("spoken", "text"), [("even(2)", "even"), ("'em", "'em"), ("a.m.", "a.m.")])
def test_the_number_of_a_pronunciation_is_dropped(spoken: str, text: str) -> None:
    assert recognition_of([Segment(spoken, 0, 9)]).text == text


def test_frames_are_ten_milliseconds_and_the_last_one_is_included() -> None:
    [word] = recognition_of([Segment("he", 20, 33)]).words or ()

    assert (word.start, word.end) == pytest.approx((0.20, 0.34))


def test_confidence_stays_within_one_and_a_text_has_the_mean_of_its_words() -> None:
    heard = recognition_of([Segment("a", 0, 9, 1.0001), Segment("b", 10, 19, 0.5)])

    assert [word.confidence for word in heard.words or ()] == [1.0, 0.5]
    assert heard.confidence == 0.75


@pytest.mark.parametrize("segments", [[], [Segment("<s>", 0, 5), Segment("</s>", 6, 8)]])
def test_no_word_is_an_empty_text_without_confidence(segments: list[Segment]) -> None:
    assert recognition_of(segments) == Recognition("", words=(), confidence=None)


def test_words_come_in_order() -> None:
    heard = recognition_of([Segment("a", 0, 9), Segment("b", 10, 19)])

    assert heard.words == (Word("a", 0.0, 0.1, 0.5), Word("b", 0.1, 0.2, 0.5))

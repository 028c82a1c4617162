"""Stitching: every word once, in order, where it was said."""

from dataclasses import dataclass

import pytest
from amela_asr.engine import Recognition, Word
from amela_asr.stitching import stitch
from amela_common.errors import RequestError
from amela_common.voice.pieces import Piece
from hypothesis import given
from hypothesis import strategies as st

OVERLAP = 1.0
# How far an engine's times of the same word may differ between two pieces.
JITTER = 0.02


@dataclass
class Recording:
    words: list[Word]
    pieces: list[Piece]
    heard: list[Recognition]


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Speech cut between words and through words, as an engine hears it that garbles words cut in two."""
    time, words = 0.0, []
    for index in range(draw(st.integers(1, 30))):
        start = time + draw(st.floats(0, 1.5))
        time = start + draw(st.floats(0.1, 0.8))
        words.append(Word(f"w{index}", start, time))
    pieces = draw(pieces_of(words))
    return Recording(words, pieces, [draw(hearing(words, piece)) for piece in pieces])


@st.composite
def pieces_of(draw: st.DrawFn, words: list[Word]) -> list[Piece]:
    end = words[-1].end
    pieces, start, mark, overlaps = [], 0.0, 0.0, False
    while (mark := mark + draw(st.floats(2 * OVERLAP, 10))) < end - 2 * OVERLAP:
        through_speech = draw(st.booleans())
        cut = mark if through_speech else max((word.end for word in words if word.end <= mark), default=0.0)
        if cut - start < 2 * OVERLAP:
            continue
        reach = OVERLAP / 2 if through_speech else 0.0
        pieces.append(Piece(start, cut + reach, overlaps))
        start, overlaps = cut - reach, through_speech
    return [*pieces, Piece(start, end, overlaps)]


@st.composite
def hearing(draw: st.DrawFn, words: list[Word], piece: Piece) -> Recognition:
    heard = []
    for word in words:
        start, end = max(word.start, piece.start), min(word.end, piece.end)
        if (start, end) == (word.start, word.end):
            shift = draw(st.floats(-JITTER, JITTER))
            heard.append(Word(word.text, start - piece.start + shift, end - piece.start + shift))
        elif end - start > 3 * JITTER:
            heard.append(Word("garbled", start - piece.start, end - piece.start))
    return Recognition(" ".join(word.text for word in heard), tuple(heard))


@given(recordings())
def test_every_word_comes_once_in_order_and_where_it_was_said(recording: Recording) -> None:
    stitched = stitch(recording.pieces, recording.heard)

    assert [word.text for word in stitched.words] == [word.text for word in recording.words]
    for word, said in zip(stitched.words, recording.words, strict=True):
        assert word.start == pytest.approx(said.start, abs=1.01 * JITTER)
        assert word.end == pytest.approx(said.end, abs=1.01 * JITTER)


@given(recordings())
def test_the_text_is_the_words_of_all_pieces(recording: Recording) -> None:
    stitched = stitch(recording.pieces, recording.heard)

    assert stitched.text.split() == [word.text for word in recording.words]
    for piece in stitched.pieces:
        assert piece.text.split() == [word.text for word in piece.words or ()]


@pytest.mark.parametrize(("left", "right"), [(9.49, 9.51), (9.51, 9.49)])
def test_a_word_on_the_middle_of_an_overlap_is_neither_doubled_nor_lost(left: float, right: float) -> None:
    def heard_at(middle: float, origin: float) -> Recognition:
        return Recognition("here", (Word("here", middle - 0.2 - origin, middle + 0.2 - origin),))

    pieces = [Piece(0, 10), Piece(9, 20, overlaps_previous=True)]
    stitched = stitch(pieces, [heard_at(left, origin=0), heard_at(right, origin=9)])

    assert stitched.text == "here"


@given(
    st.lists(st.text(alphabet="abcdefgh", min_size=1), min_size=2, max_size=12, unique=True),
    st.data(),
)
def test_without_word_times_what_both_sides_heard_comes_once(tokens: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(tokens) - 1))
    shared = data.draw(st.integers(0, min(cut, 8)))
    pieces = [Piece(0, 10), Piece(9, 20, overlaps_previous=True)]

    stitched = stitch(
        pieces, [Recognition(" ".join(tokens[:cut])), Recognition(" ".join(tokens[cut - shared :]))]
    )

    assert stitched.text.split() == tokens


def texts_of(*texts: str, overlap: float = 1.0) -> str:
    pieces = [Piece(0, 10)]
    for _ in texts[1:]:
        start = pieces[-1].end - overlap
        pieces.append(Piece(start, start + 10, overlaps_previous=overlap > 0))
    return stitch(pieces, [Recognition(text) for text in texts]).text


def test_repeated_words_are_matched_at_their_longest() -> None:
    assert texts_of("and so on and on", "on and on we went") == "and so on and on we went"


def test_case_and_punctuation_do_not_hide_a_repetition() -> None:
    assert texts_of("It was the Best,", "the best of times.") == "It was the Best, of times."


def test_sides_that_heard_nothing_in_common_are_kept_whole() -> None:
    assert texts_of("it was", "of times") == "it was of times"


def test_a_repetition_longer_than_the_overlap_is_what_was_said() -> None:
    chant = " ".join(["no"] * 20)

    assert texts_of(chant, chant, overlap=0.5) == " ".join(["no"] * 36)


def test_pieces_without_overlap_keep_repeated_words() -> None:
    assert texts_of("very", "very good", overlap=0) == "very very good"


def test_pieces_in_which_nothing_was_heard_leave_no_extra_spaces() -> None:
    stitched = stitch(
        [Piece(0, 1), Piece(2, 3), Piece(4, 5)], [Recognition("a"), Recognition(""), Recognition("b")]
    )

    assert stitched.text == "a b"
    assert [(piece.start, piece.text) for piece in stitched.pieces] == [(0, "a"), (2, ""), (4, "b")]


def test_a_failed_piece_is_told_with_its_times_and_the_rest_is_kept() -> None:
    error = RequestError("WORKER_LOST", "the worker has died")
    pieces = [Piece(0, 10), Piece(10, 20), Piece(20, 30)]
    words = (Word("said", 1.0, 1.5, 0.5),)

    stitched = stitch(pieces, [Recognition("said", words, 0.5), error, Recognition("said", words, 0.5)])

    assert stitched.text == "said said"
    assert [(failure.start, failure.end, failure.error) for failure in stitched.failures] == [(10, 20, error)]
    assert stitched.words == [Word("said", 1.0, 1.5, 0.5), Word("said", 21.0, 21.5, 0.5)]


def test_a_piece_keeps_all_that_it_heard_when_the_one_it_overlaps_has_failed() -> None:
    pieces = [Piece(0, 10), Piece(10, 20), Piece(19, 29, overlaps_previous=True)]
    heard = Recognition("early late", (Word("early", 0.0, 0.2), Word("late", 5, 6)))

    stitched = stitch(pieces, [heard, RequestError("INTERNAL", "a fault"), heard])

    assert [word.text for word in stitched.words] == ["early", "late"] * 2


def test_nothing_to_stitch_is_no_text() -> None:
    stitched = stitch([], [])

    assert (stitched.text, stitched.words, stitched.pieces, stitched.failures) == ("", [], (), ())


def test_a_piece_without_an_outcome_is_a_fault() -> None:
    with pytest.raises(ValueError):
        stitch([Piece(0, 1)], [])

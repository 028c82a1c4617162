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


def stitched(left: list[Word], right: list[Word]) -> list[str]:
    """Stitch words, with times from the start of the recording, around an overlap from 9 to 10 s."""
    pieces = [Piece(0, 10), Piece(9, 20, overlaps_previous=True)]
    moved = [word._replace(start=word.start - 9, end=word.end - 9) for word in right]
    heard = [Recognition(" ".join(word.text for word in words), tuple(words)) for words in (left, moved)]
    return stitch(pieces, heard).text.split()


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        # One frame later on the right side, each in turn before, on and after the overlap's middle.
        (
            [("two", 9.04, 9.16), ("eight", 9.48, 9.64)],
            [("two", 9.12, 9.24), ("eight", 9.48, 9.64)],
            "two eight",
        ),
        ([("two", 9.40, 9.52)], [("two", 9.48, 9.60)], "two"),
        ([("two", 9.48, 9.60)], [("two", 9.40, 9.52)], "two"),
        ([("two", 9.56, 9.68)], [("two", 9.64, 9.76)], "two"),
        # Neighbours on both sides of the middle that touch.
        ([("a", 9.1, 9.49), ("b", 9.49, 9.7)], [("a", 9.13, 9.52), ("b", 9.52, 9.73)], "a b"),
        ([("a", 9.3, 9.68), ("b", 9.68, 9.9)], [("a", 9.33, 9.71), ("b", 9.71, 9.93)], "a b"),
        # Said twice.
        ([("no", 9.2, 9.35), ("no", 9.45, 9.6)], [("no", 9.17, 9.3), ("no", 9.4, 9.55)], "no no"),
        ([("no", 9.2, 9.35), ("no", 9.4, 9.55)], [("no", 9.25, 9.4), ("no", 9.45, 9.6)], "no no"),
        # Heard by the left side alone, by the right side alone.
        ([("well", 9.1, 9.3)], [("then", 9.6, 9.9)], "well then"),
        # Clipped by the edge of the one or the other, and by both.
        ([("there", 8.8, 9.2)], [("air", 9.0, 9.2), ("is", 9.3, 9.4)], "there"),
        ([("is", 9.6, 9.7), ("bi", 9.8, 10.0)], [("is", 9.6, 9.7), ("bigger", 9.8, 10.3)], "is bigger"),
        ([("so", 8.9, 10.0)], [("oh", 9.0, 10.1)], "so"),
    ],
)
def test_a_word_that_both_sides_heard_comes_once_wherever_each_places_it(
    left: list[tuple[str, float, float]], right: list[tuple[str, float, float]], text: str
) -> None:
    assert stitched([Word(*word) for word in left], [Word(*word) for word in right]) == text.split()


@given(
    st.lists(st.sampled_from(["one", "two"]), min_size=3, max_size=3),
    st.floats(0, 0.3),
    st.lists(st.floats(-0.04, 0.04), min_size=12, max_size=12),
)
def test_short_words_said_again_and_again_are_all_there(
    said: list[str], first: float, jitter: list[float]
) -> None:
    said = [*said, *said]

    def heard(shifts: list[float]) -> list[Word]:
        starts = [8.0 + first + 0.4 * index + shift for index, shift in enumerate(shifts)]
        return [Word(text, start, start + 0.12) for text, start in zip(said, starts, strict=True)]

    left, right = heard(jitter[:6]), heard(jitter[6:])
    assert (
        stitched([word for word in left if word.end <= 10], [word for word in right if word.start >= 9])
        == said
    )


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


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        ("we saw the bi", "the bigger one", "we saw the bigger one"),
        ("we saw the bigger", "saw the bigger one", "we saw the bigger one"),
        ("that there is a", "air is a way", "that there is a way"),
        ("that there is a wave", "air is a way out", "that there is a way out"),
        ("that there is", "here is a way", "that there is a way"),
        # One common word does not make others clipped ones.
        ("the cat", "the mat", "the cat the mat"),
        ("a cat", "dog cat", "a cat dog cat"),
        # What is exactly the same goes before what is nearly so.
        ("five nine yes three nine", "three nine yes three one", "five nine yes three nine yes three one"),
    ],
)
def test_without_word_times_a_clipped_word_at_an_edge_does_not_hide_a_repetition(
    left: str, right: str, text: str
) -> None:
    assert texts_of(left, right) == text


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

"""Words from a CTC model's frames, without a model."""

import numpy as np
import pytest
from amela_asr.engines.ctc_words import Emission, best_path, words_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

LETTERS = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
PIECES = ["▁go", "▁le", "ft", "▁", "s", ",", ".", "▁?"]
FRAME = 0.04


def frames(path: str, vocabulary: list[str], probability: float = 0.9) -> NDArray[np.float32]:
    """Make log-probabilities whose best path is a string of letters, with ``_`` for the blank."""
    return frames_of(
        [vocabulary.index(symbol) if symbol != "_" else -1 for symbol in path], len(vocabulary), probability
    )


def frames_of(tokens: list[int], size: int, probability: float = 0.9) -> NDArray[np.float32]:
    rest = (1 - probability) / size
    log_probs = np.full((len(tokens), size + 1), np.log(rest), np.float32)
    log_probs[np.arange(len(tokens)), tokens] = np.log(probability)
    return log_probs


def test_repetitions_are_one_token_and_blanks_none() -> None:
    path = best_path(frames("__aa_ab__", LETTERS), blank=len(LETTERS))

    assert [(LETTERS[emission.token], emission.first, emission.end) for emission in path] == [
        ("a", 2, 4),
        ("a", 5, 6),
        ("b", 6, 7),
    ]


@pytest.mark.parametrize("path", ["", "_", "______"])
def test_nothing_emitted_is_no_word(path: str) -> None:
    emissions = best_path(frames(path, LETTERS), blank=len(LETTERS))

    assert emissions == []
    assert words_of(emissions, LETTERS, "", FRAME) == ()


@given(tokens=st.lists(st.integers(0, 3), max_size=40))
def test_the_best_path_is_the_collapsed_argmax(tokens: list[int]) -> None:
    emissions = best_path(frames_of(tokens, 3), blank=3)
    collapsed = [token for before, token in zip([None, *tokens], tokens, strict=False) if token != before]

    assert [emission.token for emission in emissions] == [token for token in collapsed if token != 3]
    assert all(
        tokens[emission.first : emission.end] == [emission.token] * (emission.end - emission.first)
        for emission in emissions
    )


def test_letters_make_words_between_spaces_timed_by_their_own_frames() -> None:
    emissions = best_path(frames("_g_oo___ ___l_e__f_tt__", LETTERS), blank=len(LETTERS))
    go, left = words_of(emissions, LETTERS, "go left", FRAME)

    assert (go.text, go.start, go.end) == ("go", pytest.approx(1 * FRAME), pytest.approx(5 * FRAME))
    assert (left.text, left.start, left.end) == ("left", pytest.approx(12 * FRAME), pytest.approx(21 * FRAME))
    assert go.confidence == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("path", [" go", "go ", "  go  ", "_ _g_o_ _"])
def test_stray_spaces_make_no_words(path: str) -> None:
    words = words_of(best_path(frames(path, LETTERS), blank=len(LETTERS)), LETTERS, "go", FRAME)

    assert [word.text for word in words] == ["go"]


def emissions_of(*pieces: str) -> list[Emission]:
    return [Emission(PIECES.index(piece), 2 * n, 2 * n + 1, -0.1) for n, piece in enumerate(pieces)]


def test_pieces_make_words_at_their_marks() -> None:
    words = words_of(emissions_of("▁go", "▁le", "ft"), PIECES, "go left", FRAME)

    assert [word.text for word in words] == ["go", "left"]
    assert words[1].start == pytest.approx(2 * FRAME)
    assert words[1].end == pytest.approx(5 * FRAME)


@pytest.mark.parametrize(
    ("pieces", "text", "expected"),
    [
        (("▁go", ",", "▁le", "ft", "."), "go, left.", ["go,", "left."]),
        (("▁le", "ft", "▁?"), "left?", ["left?"]),
        (("▁le", "ft", "▁", "."), "left.", ["left."]),
        (("▁", "s", "▁go"), "s go", ["s", "go"]),
        (("s", "▁go"), "s go", ["s", "go"]),
        ((".", "▁go"), ". go", [".", "go"]),
    ],
)
def test_punctuation_belongs_to_the_word_before(
    pieces: tuple[str, ...], text: str, expected: list[str]
) -> None:
    assert [word.text for word in words_of(emissions_of(*pieces), PIECES, text, FRAME)] == expected


def test_words_are_spelled_by_their_tokens_where_the_text_has_others() -> None:
    words = words_of(emissions_of("▁go", "▁le", "ft"), PIECES, "something quite different", FRAME)

    assert [word.text for word in words] == ["go", "left"]

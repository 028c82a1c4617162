"""Outputs that do not stop."""

import pytest
from amela_asr.engines.runaway import repetitions, runs_away
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        ([], (0, 0)),
        ([1], (1, 1)),
        ([1, 2, 3], (1, 1)),
        ([9, 1, 1, 1], (1, 3)),
        ([9, 1, 2, 1, 2, 1, 2], (2, 3)),
        ([1, 1, 2, 1, 1, 2], (3, 2)),
    ],
)
def test_the_phrase_that_covers_most_of_the_end_is_found(tokens: list[int], found: tuple[int, int]) -> None:
    assert repetitions(tokens) == found


@given(
    head=st.lists(st.integers(10, 20), max_size=10),
    phrase=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    count=st.integers(9, 30),
)
def test_a_phrase_over_and_over_runs_away_whatever_came_before(
    head: list[int], phrase: list[int], count: int
) -> None:
    tokens = head + phrase * count
    if len(phrase) * count >= 24:
        assert runs_away(tokens, finished=True) is not None


def test_an_output_that_was_cut_runs_away() -> None:
    assert runs_away([1, 2, 3], finished=False) == "it did not end within 3 tokens"


@pytest.mark.parametrize("tokens", [[], [5], [5] * 8, [1, 2, 3] * 8, [7] * 20, list(range(200))])
def test_what_people_say_does_not_run_away(tokens: list[int]) -> None:
    assert runs_away(tokens, finished=True) is None

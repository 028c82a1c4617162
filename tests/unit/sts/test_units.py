import numpy as np
from amela_sts.units import RunLengths, expand, runs
from hypothesis import given
from hypothesis import strategies as st

_UNITS = st.lists(st.integers(0, 3), max_size=60)


def _array(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


@given(_UNITS)
def test_runs_expand_to_the_units_they_came_from(values: list[int]) -> None:
    units, durations = runs(_array(values))
    assert (np.diff(units) != 0).all()
    assert (durations > 0).all()
    assert np.repeat(units, durations).tolist() == values


@given(_UNITS, st.lists(st.integers(0, 60)))
def test_runs_are_the_same_whatever_pieces_the_units_come_in(values: list[int], cuts: list[int]) -> None:
    collector = RunLengths()
    pieces = np.split(_array(values), sorted(min(cut, len(values)) for cut in cuts))
    parts = [collector.push(piece) for piece in pieces] + [collector.finish()]
    units, durations = (np.concatenate(column) for column in zip(*parts, strict=True))
    whole_units, whole_durations = runs(_array(values))
    assert units.tolist() == whole_units.tolist()
    assert durations.tolist() == whole_durations.tolist()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 7)), max_size=20), st.integers(1, 10))
def test_expanding_repeats_each_unit_in_pieces_of_the_size_asked_for(
    pairs: list[tuple[int, int]], size: int
) -> None:
    units, durations = _array([unit for unit, _ in pairs]), _array([count for _, count in pairs])
    pieces = list(expand(units, durations, size))
    assert all(len(piece) == size for piece in pieces[:-1])
    assert [int(unit) for piece in pieces for unit in piece] == np.repeat(units, durations).tolist()


def test_a_unit_of_a_hundred_days_is_expanded_bit_by_bit() -> None:
    pieces = expand(_array([7]), _array([50 * 86_400 * 100]), 1000)
    assert next(pieces).tolist() == [7] * 1000

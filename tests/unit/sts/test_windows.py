import numpy as np
import pytest
from amela_sts.encoder.layers import parse
from amela_sts.windows import Window, Windows
from hypothesis import given
from hypothesis import strategies as st

_HOP, _FIELD = 4, 7


def _frames_of(items: np.ndarray) -> list[tuple[int, ...]]:
    """What a convolution of that hop and field sees: one tuple of items for each frame."""
    count = (len(items) - _FIELD) // _HOP + 1 if len(items) >= _FIELD else 0
    return [tuple(items[at * _HOP : at * _HOP + _FIELD].tolist()) for at in range(count)]


def _cut(items: np.ndarray, pieces: list[np.ndarray], middle: int, context: int) -> list[Window]:
    windows = Windows(middle, context, hop=_HOP, field=_FIELD)
    return [window for piece in pieces for window in windows.push(piece)] + list(windows.finish())


@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=6), st.integers(3, 9), st.integers(0, 3))
def test_middles_join_to_the_frames_of_the_whole_with_context_around_them(
    length: int, cuts: list[int], middle: int, context: int
) -> None:
    items = np.arange(length)
    pieces = np.split(items, sorted(min(cut, length) for cut in cuts))
    windows = _cut(items, pieces, middle, context)

    whole = _frames_of(items)
    kept = [frame for window in windows for frame in _frames_of(window.items)[window.skip :][: window.keep]]
    assert kept == whole
    assert windows == [] or sum(window.whole for window in windows) == (len(whole) <= middle + 2 * context)
    done = 0
    for window in windows:
        assert len(_frames_of(window.items)) <= middle + 2 * context or window.whole
        assert window.skip == min(context, done) or window.whole
        done += window.keep
        behind = len(_frames_of(window.items)) - window.skip - window.keep
        assert behind == min(context, len(whole) - done)


@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=6))
def test_the_cuts_do_not_hang_on_the_pieces_that_the_sequence_comes_in(length: int, cuts: list[int]) -> None:
    items = np.arange(length)
    pieces = np.split(items, sorted(min(cut, length) for cut in cuts))
    for one, other in zip(_cut(items, [items], 5, 2), _cut(items, pieces, 5, 2), strict=True):
        assert one.items.tolist() == other.items.tolist()
        assert one[1:] == other[1:]


def test_a_long_sequence_is_not_held_in_memory() -> None:
    windows = Windows(50, 10)
    for _ in range(100):
        assert sum(window.keep for window in windows.push(np.zeros(100))) <= 200
        assert windows._held_items <= 100 + 50 + 2 * 10


def test_convolutions_count_their_frames_as_a_chain_of_convolutions_does() -> None:
    usual = parse("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")
    assert (usual.hop, usual.field) == (320, 400)
    for samples in (0, 1, 399, 400, 719, 720, 16_000, 80_001):
        assert usual.frames(samples) == max(0, (samples - usual.field) // usual.hop + 1)
    assert usual.frames(16_000, 1) == 3199


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch hacked')",
        "[(512,10,5)] + [].__class__",
        "[(512,10,5)] * 10**9",
        "[(512,10)]",
        "[(512,10,-5)]",
        "[(512.5,10,5)]",
        "[]",
        "(",
        "[" * 500,
    ],
)
def test_convolutions_that_are_no_list_of_numbers_are_not_evaluated(expression: str) -> None:
    with pytest.raises(ValueError, match="not "):
        parse(expression)

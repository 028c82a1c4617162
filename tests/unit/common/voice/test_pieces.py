from itertools import accumulate, pairwise

import pytest
from amela_common.voice.pieces import Piece, plan_pieces
from amela_common.voice.segmentation import Segment, nonspeech
from hypothesis import given
from hypothesis import strategies as st


def rounded(pieces: list[Piece]) -> list[tuple[float, float, bool]]:
    return [(round(piece.start, 6), round(piece.end, 6), piece.overlaps_previous) for piece in pieces]


def speech_but_for(pauses: list[tuple[float, float]], duration: float) -> list[Segment]:
    return nonspeech([Segment(*pause) for pause in pauses], duration)


def test_neighbours_join_and_keep_a_little_silence_around_them() -> None:
    segments = [Segment(2, 5), Segment(5.5, 9), Segment(9.1, 12)]
    assert rounded(plan_pieces(segments, 20)) == [(1.85, 12.15, False)]


def test_the_silence_kept_stops_at_the_ends_of_the_recording() -> None:
    assert rounded(plan_pieces([Segment(0.1, 9.95)], 10)) == [(0, 10, False)]


def test_a_long_pause_ends_a_piece_and_is_not_sent() -> None:
    segments = [Segment(0, 5), Segment(6, 8), Segment(9.1, 12)]
    assert rounded(plan_pieces(segments, 12)) == [(0, 8.15, False), (8.95, 12, False)]


def test_a_recording_without_speech_has_no_pieces() -> None:
    assert plan_pieces([], 100) == []


def test_the_cut_falls_into_the_longest_pause_of_the_second_half() -> None:
    segments = speech_but_for([(10, 10.9), (18, 18.6), (24, 24.4), (29, 29.3)], 40)
    assert rounded(plan_pieces(segments, 40)) == [(0, 18.15, False), (18.45, 40, False)]


def test_the_cut_falls_into_the_last_pause_when_the_second_half_has_none() -> None:
    segments = speech_but_for([(5, 5.9), (10, 10.4)], 36)
    assert rounded(plan_pieces(segments, 36)) == [(0, 10.15, False), (10.25, 36, False)]


def test_a_pause_of_just_min_pause_is_cut_in_its_middle() -> None:
    segments = speech_but_for([(20, 20.3)], 40)
    assert rounded(plan_pieces(segments, 40)) == [(0, 20.15, False), (20.15, 40, False)]


def test_speech_without_a_usable_pause_is_cut_into_equal_parts_that_overlap() -> None:
    segments = speech_but_for([(20, 20.2)], 40)
    assert rounded(plan_pieces(segments, 40)) == [(0, 20.5, False), (19.5, 40, True)]


def test_what_fits_exactly_is_one_piece() -> None:
    assert rounded(plan_pieces([Segment(0, 30)], 30)) == [(0, 30, False)]


def test_the_last_part_of_a_hard_cut_goes_on_with_what_follows() -> None:
    segments = speech_but_for([(31, 31.4)], 40)
    assert rounded(plan_pieces(segments, 40)) == [(0, 16.075, False), (15.075, 40, True)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 10.0}, "overlap .* 10.0 s"),
        ({"overlap": -0.1}, "overlap .* -0.1 s"),
        ({"max_piece": 0.0}, "overlap"),
        ({"min_pause": 0.0}, "min_pause .* 0.0 s"),
        ({"min_pause": 1.5}, "min_pause .* 1.5 s"),
        ({"min_pause": float("nan")}, "min_pause .* nan"),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_pieces([], 10, **options)


lengths = st.lists(st.tuples(st.floats(0.01, 3), st.floats(0.016, 80)), max_size=40)
hop_lengths = st.lists(
    st.tuples(st.integers(1, 80).map(lambda n: n * 0.016), st.integers(1, 3000).map(lambda n: n * 0.016)),
    max_size=40,
)


@given(st.one_of(lengths, hop_lengths), st.floats(0, 3), st.sampled_from([8.0, 30.0]))
def test_plan(runs: list[tuple[float, float]], trailing: float, max_piece: float) -> None:
    times = list(accumulate((length for run in runs for length in run), initial=0.0))
    segments = [Segment(start, end) for start, end in zip(times[1::2], times[2::2], strict=True)]
    duration = times[-1] + trailing
    pieces = plan_pieces(segments, duration, max_piece=max_piece)

    assert all(0 <= piece.start < piece.end <= duration for piece in pieces)
    assert all(piece.duration <= max_piece + 1e-5 for piece in pieces)
    for before, after in pairwise(pieces):
        if after.overlaps_previous:
            assert before.end - after.start == pytest.approx(1.0)
        else:
            assert before.end <= after.start
    assert all(before.end <= after.start for before, after in zip(pieces, pieces[2:], strict=False))

    for segment in segments:
        covered = segment.start
        for piece in pieces:
            if piece.start <= covered + 1e-6:
                covered = max(covered, piece.end)
        assert covered >= segment.end - 1e-6

    for pause in nonspeech(segments, duration):
        sent = sum(max(0.0, min(piece.end, pause.end) - max(piece.start, pause.start)) for piece in pieces)
        if pause.duration > 1.0 + 1e-5:
            assert sent <= 0.3 + 1e-5

    boundaries = [piece.end for piece, after in pairwise(pieces) if not after.overlaps_previous]
    assert not any(segment.start < cut < segment.end for cut in boundaries for segment in segments)

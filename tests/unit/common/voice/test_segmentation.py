from itertools import pairwise

import numpy as np
import pytest
from amela_common.voice.detector import HOP
from amela_common.voice.live import Edge, LiveSegmenter
from amela_common.voice.segmentation import (
    Segment,
    SegmentationOptions,
    is_long,
    is_no_speech,
    nonspeech,
    segment,
    split_points,
    statistics,
)
from hypothesis import given
from hypothesis import strategies as st

DEFAULTS = SegmentationOptions()


def frames(pattern: str) -> np.ndarray:
    """Probabilities from a picture: ``#`` is speech, ``.`` is not."""
    return np.array([0.9 if mark == "#" else 0.1 for mark in pattern], np.float32)


def in_frames(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(round(run.start / HOP, 6), round(run.end / HOP, 6)) for run in segments]


def segments_of(pattern: str, **options: float) -> list[tuple[float, float]]:
    """Segment a picture with options given in frames, and answer in frames."""
    seconds = {name: value if name == "threshold" else value * HOP for name, value in options.items()}
    return in_frames(segment(frames(pattern), len(pattern) * HOP, SegmentationOptions(**seconds)))


class TestSegment:
    def test_each_run_of_speech_is_a_segment(self) -> None:
        assert segments_of("..##.#...###") == [(2, 4), (5, 6), (9, 12)]

    @pytest.mark.parametrize(("pattern", "expected"), [("", []), ("....", []), ("####", [(0, 4)])])
    def test_recordings_of_one_kind_only(self, pattern: str, expected: list[tuple[float, float]]) -> None:
        assert segments_of(pattern) == expected

    def test_a_probability_equal_to_the_threshold_is_speech(self) -> None:
        exact = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0))], np.float32)
        assert in_frames(segment(exact, 2 * HOP, DEFAULTS)) == [(0, 1)]

    def test_a_threshold_that_float32_rounds_still_includes_its_own_value(self) -> None:
        exact = np.array([0.7], np.float32)
        assert segment(exact, HOP, SegmentationOptions(threshold=0.7)) == [Segment(0.0, HOP)]

    @pytest.mark.parametrize(("threshold", "expected"), [(0.0, [(0, 3)]), (1.0, [])])
    def test_the_extreme_thresholds(self, threshold: float, expected: list[tuple[float, float]]) -> None:
        assert segments_of("#.#", threshold=threshold) == expected

    def test_the_last_segment_ends_with_the_recording_inside_its_frame(self) -> None:
        assert segment(frames(".##"), 2.25 * HOP, DEFAULTS) == [Segment(HOP, 2.25 * HOP)]

    def test_gaps_shorter_than_merge_gap_are_bridged_and_others_kept(self) -> None:
        assert segments_of("#.#..#...#", merge_gap=2) == [(0, 3), (5, 6), (9, 10)]

    def test_silence_at_the_ends_is_not_a_gap(self) -> None:
        assert segments_of(".#.", merge_gap=100) == [(1, 2)]

    def test_segments_shorter_than_min_speech_are_dropped(self) -> None:
        assert segments_of("#..##..###", min_speech=2) == [(3, 5), (7, 10)]

    def test_bridging_comes_before_dropping(self) -> None:
        assert segments_of("#.#...#", merge_gap=2, min_speech=3) == [(0, 3)]

    def test_padding_stops_at_the_ends_and_in_the_middle_of_gaps(self) -> None:
        assert segments_of(".#...#.......#..", padding=2) == [(0, 3.5), (3.5, 8), (11, 16)]

    def test_padding_ignores_what_was_dropped(self) -> None:
        assert segments_of("##..#..##", padding=2, min_speech=2) == [(0, 4), (5, 9)]

    def test_options_equal_to_a_run_count_frames_whatever_floating_point_makes_of_them(self) -> None:
        for count in range(2, 200):
            pattern = "#" + "." * count + "#" * count
            assert segments_of(pattern, merge_gap=count, min_speech=count) == [(count + 1, 2 * count + 1)]


class TestNonspeech:
    def test_it_is_what_lies_between_and_around_segments(self) -> None:
        assert nonspeech([Segment(1, 2), Segment(4, 5)], 7) == [Segment(0, 1), Segment(2, 4), Segment(5, 7)]

    def test_segments_at_the_ends_or_touching_leave_no_empty_runs(self) -> None:
        assert nonspeech([Segment(0, 2), Segment(2, 5)], 5) == []

    def test_without_segments_it_is_everything(self) -> None:
        assert nonspeech([], 3) == [Segment(0, 3)]

    def test_an_empty_recording_has_none(self) -> None:
        assert nonspeech([], 0) == []


def speech_but_for(pauses: list[tuple[float, float]], duration: float) -> list[Segment]:
    return nonspeech([Segment(*pause) for pause in pauses], duration)


class TestSplitPoints:
    @pytest.mark.parametrize(
        ("pauses", "expected"),
        [
            pytest.param([(31, 32)], [31.5], id="the middle of a pause"),
            pytest.param([(31, 32), (33, 35)], [31.5], id="the first, not the longest"),
            pytest.param([(31, 31.2), (33, 35)], [34], id="not one below 0.3 s"),
            pytest.param([(31, 31.3)], [31.15], id="one of exactly 0.3 s"),
            pytest.param([(25, 29.9)], [], id="none before the mark"),
            pytest.param([(40.1, 45)], [], id="none after the window"),
            pytest.param([(29, 30.2), (33, 34)], [33.5], id="only what is left of a pause after the mark"),
            pytest.param([(39.8, 62), (65, 66)], [61], id="a pause too late for one mark serves the next"),
            pytest.param([(20, 50)], [35], id="a long silence is cut inside the window"),
            pytest.param([(0, 100)], [35, 65, 95], id="each mark has its point"),
            pytest.param([], [], id="speech all the way"),
        ],
    )
    def test_rule(self, pauses: list[tuple[float, float]], expected: list[float]) -> None:
        assert split_points(speech_but_for(pauses, 100), 100) == pytest.approx(expected)

    def test_the_last_window_ends_with_the_recording(self) -> None:
        assert split_points([], 94) == pytest.approx([35, 65, 92])

    @pytest.mark.parametrize(("duration", "expected"), [(59.99, []), (60, [35])])
    def test_recordings_below_a_minute_are_not_cut(self, duration: float, expected: list[float]) -> None:
        assert split_points([], duration) == expected

    @given(st.lists(st.floats(0.01, 20), max_size=60))
    def test_points_lie_in_pauses_within_their_windows(self, lengths: list[float]) -> None:
        times = np.cumsum([0.0, *lengths]).tolist()
        segments = [Segment(start, end) for start, end in zip(times[1::2], times[2::2], strict=False)]
        pauses = nonspeech(segments, times[-1])
        points = split_points(segments, times[-1])
        marks = [point // 30 for point in points]
        assert len(set(marks)) == len(marks)
        for point in points:
            assert 30 <= point < times[-1]
            assert point % 30 <= 10
            assert any(pause.start <= point <= pause.end for pause in pauses)


class TestStatistics:
    def test_runs_of_both_kinds(self) -> None:
        found = statistics([Segment(1, 2), Segment(4, 7)], 10)
        assert (found.max_speech, found.min_speech, found.mean_speech) == (3, 1, 2)
        assert (found.max_nonspeech, found.min_nonspeech, found.mean_nonspeech) == (3, 1, 2)
        assert found.speech_ratio == pytest.approx(0.4)

    def test_runs_that_do_not_exist_are_zero(self) -> None:
        silent, full = statistics([], 5), statistics([Segment(0, 5)], 5)
        assert (silent.max_speech, silent.mean_speech, silent.speech_ratio) == (0, 0, 0)
        assert (full.max_nonspeech, full.mean_nonspeech, full.speech_ratio) == (0, 0, 1)

    def test_an_empty_recording_has_no_ratio(self) -> None:
        assert statistics([], 0).speech_ratio == 0

    @pytest.mark.parametrize(
        ("segments", "duration", "expected"),
        [
            ([], 5, True),
            ([Segment(0, 0.29)], 1, True),
            ([Segment(0, 0.2), Segment(0.3, 0.5)], 1, True),
            ([Segment(0.7, 1.0)], 1, False),
            ([Segment(0, 0.9)], 100, True),
            ([Segment(0, 1.0)], 100, False),
        ],
    )
    def test_no_speech(self, segments: list[Segment], duration: float, expected: bool) -> None:
        assert is_no_speech(statistics(segments, duration)) is expected

    @pytest.mark.parametrize(("duration", "expected"), [(59.999, False), (60, True)])
    def test_long(self, duration: float, expected: bool) -> None:
        assert is_long(duration) is expected


recordings = st.tuples(st.lists(st.booleans(), max_size=80), st.floats(0.001, 1))
times = st.one_of(st.just(0.0), st.integers(0, 20).map(lambda count: count * HOP), st.floats(0, 0.4))
options = st.builds(SegmentationOptions, merge_gap=times, min_speech=times, padding=times)


def live_segments(
    probabilities: np.ndarray, duration: float, chosen: SegmentationOptions, chunk: int
) -> list[Segment]:
    """Follow a recording chunk by chunk, its last frame with the end, as a stream does."""
    segmenter = LiveSegmenter(chosen)
    edges: list[Edge] = []
    whole = probabilities[:-1]
    for start in range(0, len(whole), chunk):
        new = segmenter.push(whole[start : start + chunk])
        assert all(edge.time <= (start + chunk) * HOP + 1e-9 for edge in new)
        edges += new
    edges += segmenter.finish(probabilities[-1:], duration)
    assert [edge.is_start for edge in edges] == [True, False] * (len(edges) // 2)
    return [Segment(start.time, end.time) for start, end in zip(edges[::2], edges[1::2], strict=True)]


class TestBothWays:
    @given(recordings, options, st.integers(1, 30))
    def test_live_segments_are_those_of_the_whole_recording(
        self, recording: tuple[list[bool], float], chosen: SegmentationOptions, chunk: int
    ) -> None:
        flags, last = recording
        probabilities = np.array(flags, np.float32)
        duration = (len(flags) - 1 + last) * HOP if flags else 0.0
        assert live_segments(probabilities, duration, chosen, chunk) == segment(
            probabilities, duration, chosen
        )

    @given(recordings, options)
    def test_segments_are_ordered_apart_and_inside_the_recording(
        self, recording: tuple[list[bool], float], chosen: SegmentationOptions
    ) -> None:
        flags, last = recording
        duration = (len(flags) - 1 + last) * HOP if flags else 0.0
        found = segment(np.array(flags, np.float32), duration, chosen)
        assert all(0 <= run.start < run.end <= duration for run in found)
        assert all(before.end <= after.start for before, after in pairwise(found))

    @given(recordings)
    def test_without_options_speech_frames_are_exactly_the_segments(
        self, recording: tuple[list[bool], float]
    ) -> None:
        flags = recording[0]
        found = segment(np.array(flags, np.float32), len(flags) * HOP, DEFAULTS)
        middles = [(frame + 0.5) * HOP for frame in range(len(flags))]
        assert flags == [any(run.start < middle < run.end for run in found) for middle in middles]


class TestLive:
    def test_an_edge_is_told_with_the_first_frame_after_it(self) -> None:
        segmenter = LiveSegmenter(DEFAULTS)
        assert segmenter.push(frames("..")) == []
        assert segmenter.push(frames("#")) == [Edge(2 * HOP, True)]
        assert segmenter.push(frames("##")) == []
        assert segmenter.push(frames(".")) == [Edge(5 * HOP, False)]

    def test_a_start_waits_for_min_speech(self) -> None:
        segmenter = LiveSegmenter(SegmentationOptions(min_speech=3 * HOP))
        assert segmenter.push(frames("##.##")) == []
        assert segmenter.push(frames("#")) == [Edge(3 * HOP, True)]

    def test_an_end_waits_for_merge_gap(self) -> None:
        segmenter = LiveSegmenter(SegmentationOptions(merge_gap=3 * HOP))
        assert segmenter.push(frames("#..#..")) == [Edge(0.0, True)]
        assert segmenter.push(frames(".")) == [Edge(4 * HOP, False)]

    def test_an_end_waits_for_twice_the_padding(self) -> None:
        segmenter = LiveSegmenter(SegmentationOptions(padding=2 * HOP))
        assert segmenter.push(frames("....#...")) == [Edge(2 * HOP, True)]
        assert segmenter.push(frames(".")) == [Edge(7 * HOP, False)]

    def test_speech_at_the_end_of_the_stream_ends_there(self) -> None:
        segmenter = LiveSegmenter(DEFAULTS)
        segmenter.push(frames(".#"))
        assert segmenter.finish(frames("#"), 2.5 * HOP) == [Edge(2.5 * HOP, False)]

    def test_an_empty_stream_has_no_edges(self) -> None:
        assert LiveSegmenter(DEFAULTS).finish(frames(""), 0.0) == []

import math

import pytest
from amela.common.v1 import error_pb2
from amela.common.v1.server_pb2 import Capacity
from amela_client.errors import CallError
from amela_client.pacing import (
    MAX_TRIES,
    Effect,
    Pace,
    Speeds,
    Window,
    backoff,
    call_timeout,
    expected_remaining,
    judge,
    worth_racing,
)
from hypothesis import given
from hypothesis import strategies as st

TRANSIENT = {
    value.name.removeprefix("ERROR_REASON_"): value.GetOptions().Extensions[error_pb2.transient]
    for value in error_pb2.ErrorReason.DESCRIPTOR.values
}
seconds = st.floats(0, 1e6)


def error(reason: str, *, transient: bool = True) -> CallError:
    return CallError(reason, "as planned", transient=transient)


def window(concurrency: int = 4, queue: int = 64) -> Window:
    made = Window()
    made.resize(Capacity(concurrency=concurrency, queue=queue))
    return made


def grown(concurrency: int = 4, queue: int = 64) -> Window:
    made = window(concurrency, queue)
    for _ in range(1000):
        made.succeeded()
    return made


@given(st.sampled_from(sorted(TRANSIENT)), st.integers(0, 10))
def test_only_transient_failures_are_tried_again_and_at_most_three_times(reason: str, tries: int) -> None:
    verdict = judge(error(reason, transient=TRANSIENT[reason]), tries)
    if verdict.again and verdict.counts:
        assert TRANSIENT[reason]
        assert tries + 1 < MAX_TRIES
    if not TRANSIENT[reason] and reason != "BAD_TOKEN":
        assert not verdict.again
        assert verdict.effect is Effect.NONE


@pytest.mark.parametrize(
    "reason", ["QUEUE_FULL", "DRAINING", "BAD_TOKEN", "UNAUTHENTICATED", "BAD_CERTIFICATE"]
)
def test_what_was_never_attempted_is_no_try(reason: str) -> None:
    assert (judge(error(reason), 2).again, judge(error(reason), 2).counts) == (True, False)


@pytest.mark.parametrize(
    "reason", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ENGINE_LOST", "DRAINING"]
)
def test_a_server_that_may_be_gone_is_suspended(reason: str) -> None:
    assert judge(error(reason), 0).effect is Effect.SUSPEND


def test_a_full_queue_lets_the_server_rest() -> None:
    assert judge(error("QUEUE_FULL"), 0).effect is Effect.REST


def test_a_request_that_is_too_large_for_grpc_does_not_slow_its_server_down() -> None:
    verdict = judge(error("RESOURCE_EXHAUSTED", transient=False), 0)
    assert (verdict.again, verdict.effect) == (False, Effect.NONE)


@given(st.integers(1, 100))
def test_backoff_doubles_within_bounds_and_jitters(failures: int) -> None:
    assert 0.125 <= backoff(failures) <= 45
    assert backoff(failures, min) * 3 == pytest.approx(backoff(failures, max))
    assert backoff(failures, max) <= backoff(failures + 1, max)


@given(seconds)
def test_a_call_gets_ten_times_its_audio_and_some_minutes(audio: float) -> None:
    assert call_timeout(audio) > 10 * audio
    assert call_timeout(audio) >= 600


def test_audio_of_unknown_length_gets_hours() -> None:
    assert call_timeout(0.0) > call_timeout(600.0)


def test_a_window_begins_with_what_the_server_works_on() -> None:
    assert window(concurrency=4, queue=64).limit == 4


@pytest.mark.parametrize(
    ("concurrency", "queue", "most"), [(4, 64, 8), (4, 1, 5), (4, 0, 4), (1, 64, 2), (0, 0, 1), (0, 9, 2)]
)
def test_a_window_grows_to_keep_the_server_busy_but_not_past_its_queue(
    concurrency: int, queue: int, most: int
) -> None:
    assert grown(concurrency, queue).limit == most


def test_a_window_is_open_until_it_is_full() -> None:
    one = window(concurrency=2)
    assert one.is_open(0.0)
    one.in_flight = 2
    assert not one.is_open(0.0)
    assert one.would_queue


def test_a_refusal_halves_the_window_once_for_calls_sent_together() -> None:
    one = grown(concurrency=8)
    one.in_flight = 15
    for _ in range(10):
        one.refused(sent_at=1.0, now=2.0, retry_after=None)
    assert one.limit == 8


def test_a_later_refusal_halves_it_again_down_to_one() -> None:
    one = grown(concurrency=8)
    for now in range(10):
        one.in_flight = 15
        one.refused(sent_at=float(now), now=float(now), retry_after=None)
    assert one.limit == 1


@given(st.floats(0.001, 3600), seconds)
def test_a_refused_server_rests_at_least_as_long_as_it_says(retry_after: float, now: float) -> None:
    one = window()
    one.refused(now, now, retry_after)
    assert one.rests_until >= now + retry_after
    assert not one.is_open(now)
    assert one.is_open(one.rests_until)


def test_a_server_that_names_no_delay_rests_longer_each_time() -> None:
    one = window()
    rests = []
    for _ in range(6):
        one.refused(0.0, 0.0, None)
        rests.append(one.rests_until)
    assert rests[5] > rests[0] * 2


def test_a_window_grows_back_by_one_for_each_of_its_size() -> None:
    one = grown(concurrency=8)
    one.in_flight = 15
    one.refused(0.0, 0.0, None)
    before = one.limit
    for _ in range(before):
        one.succeeded()
    assert one.limit <= before + 1
    for _ in range(200):
        one.succeeded()
    assert one.limit == 16


def test_single_failures_leave_the_window_alone() -> None:
    one = window(concurrency=4)
    one.failed(now=1.0, last_success=0.0)
    one.failed(now=2.0, last_success=0.0)
    assert (one.limit, one.rests_until) == (4, 0.0)


def test_a_server_that_fails_where_others_succeed_rests() -> None:
    one = window(concurrency=4)
    for now in (1.0, 2.0, 3.0):
        one.failed(now, last_success=2.5)
    assert one.limit == 1
    assert one.rests_until > 3.0


def test_servers_rest_for_no_failures_that_all_of_them_have() -> None:
    one = window(concurrency=4)
    for now in range(1, 20):
        one.failed(float(now), last_success=0.5)
    assert one.rests_until == 0.0


@given(
    st.integers(0, 64),
    st.integers(0, 64),
    st.lists(st.tuples(st.sampled_from(["ok", "full", "failed"]), st.floats(0, 100)), max_size=200),
)
def test_a_window_never_closes_for_good_nor_grows_past_what_was_advertised(
    concurrency: int, queue: int, events: list[tuple[str, float]]
) -> None:
    one = window(concurrency, queue)
    for event, now in events:
        match event:
            case "ok":
                one.succeeded()
            case "full":
                one.refused(now, now, None)
            case "failed":
                one.failed(now, now)
        assert 1 <= one.limit <= max(1, concurrency) + queue
    assert one.is_open(math.inf)


def test_a_pace_follows_the_server_and_is_led_by_long_calls() -> None:
    pace = Pace()
    assert pace.expect(10.0) is None
    pace.observe(100.0, 10.0)
    pace.observe(1.0, 5.0)
    assert pace.expect(100.0) == pytest.approx(10 + 5, rel=0.1)
    for _ in range(100):
        pace.observe(100.0, 50.0)
    assert pace.expect(10.0) == pytest.approx(5.0, rel=0.01)


def test_audio_of_unknown_length_counts_as_a_second() -> None:
    pace = Pace()
    pace.observe(0.0, 4.0)
    assert pace.expect(0.0) == pace.expect(1.0) == 4.0


@given(st.floats(1e-3, 1e3), st.floats(0, 1e6))
def test_the_longest_audio_for_some_time_takes_that_time(elapsed: float, time: float) -> None:
    pace = Pace()
    pace.observe(1.0, elapsed)
    assert pace.expect(1.0) * pace.longest_within(time) == pytest.approx(time)  # type: ignore[operator]


def test_a_server_that_nothing_is_known_of_is_taken_to_work_in_real_time() -> None:
    assert Pace().longest_within(60.0) == 60.0
    assert Pace().longest_within(math.inf) == math.inf


def pace_of(seconds_per_second: float) -> Pace:
    pace = Pace()
    pace.observe(1.0, seconds_per_second)
    return pace


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 8)), min_size=1, max_size=8), st.floats(0, 1e4))
def test_audio_that_suits_a_server_ends_no_later_than_on_the_fastest(
    servers: list[tuple[float, int]], waiting: float
) -> None:
    speeds = Speeds()
    speeds.measure((pace_of(pace), calls) for pace, calls in servers)
    best = min(pace for pace, _ in servers)
    horizon = waiting / sum(calls / pace for pace, calls in servers)
    for pace, _ in servers:
        audio = speeds.longest_suitable(pace_of(pace), waiting)
        assert audio is not None
        if pace == best:
            assert audio == math.inf
        else:
            assert audio * pace == pytest.approx(horizon + audio * best)


def test_without_a_measurement_any_audio_suits_a_server_that_is_known() -> None:
    assert Speeds().longest_suitable(pace_of(2.0), 100.0) == math.inf
    assert Speeds().longest_suitable(Pace(), 100.0) is None


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_call_past_its_time_is_expected_to_take_ever_longer(expected: float, elapsed: float) -> None:
    remaining = expected_remaining(expected, elapsed)
    assert remaining >= expected - elapsed
    assert expected_remaining(expected, 3 * (expected + elapsed)) >= expected


def test_equal_servers_race_only_for_what_is_overdue() -> None:
    assert not worth_racing(10.0, expected_remaining(10.0, 0.0))
    assert not worth_racing(10.0, expected_remaining(10.0, 15.0))
    assert worth_racing(10.0, expected_remaining(10.0, 21.0))


def test_a_fast_server_races_a_slow_one_at_once() -> None:
    assert worth_racing(1.0, expected_remaining(20.0, 0.0))


def test_nothing_is_raced_for_the_sake_of_milliseconds() -> None:
    assert not worth_racing(0.001, expected_remaining(0.001, 0.1))

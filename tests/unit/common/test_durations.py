import pytest
from amela_common.durations import MAX_SECONDS, from_duration, to_duration
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(-(10**15), 10**15))
def test_every_sample_of_a_recording_keeps_its_time(sample: int) -> None:
    assert from_duration(to_duration(sample / 16_000)) == sample / 16_000


@given(st.floats(-MAX_SECONDS, MAX_SECONDS))
def test_a_duration_is_the_nearest_nanosecond(seconds: float) -> None:
    duration = to_duration(seconds)
    assert abs(from_duration(duration) - seconds) <= max(0.5e-9, abs(seconds) * 2**-52)
    assert duration.ToNanoseconds() == duration.seconds * 10**9 + duration.nanos


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, Duration()),
        (1.5, Duration(seconds=1, nanos=500_000_000)),
        (-1.5, Duration(seconds=-1, nanos=-500_000_000)),
        (0.9999999999, Duration(seconds=1)),
        (-0.9999999999, Duration(seconds=-1)),
        (1e-10, Duration()),
    ],
)
def test_seconds_and_nanoseconds_have_one_sign_and_carry(seconds: float, expected: Duration) -> None:
    assert to_duration(seconds) == expected


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_what_no_duration_holds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        to_duration(seconds)

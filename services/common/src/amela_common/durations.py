"""Seconds and ``google.protobuf.Duration``."""

from google.protobuf.duration_pb2 import Duration

MAX_SECONDS = 315_576_000_000
"""The 10,000 years that a ``Duration`` holds, before zero and after."""

_NANOS = 1_000_000_000


def to_duration(seconds: float) -> Duration:
    """Make a ``Duration`` of a number of seconds, to the nearest nanosecond.

    Raises
    ------
    ValueError
        If `seconds` is NaN, or past `MAX_SECONDS`.
    """
    if not abs(seconds) <= MAX_SECONDS:
        raise ValueError(f"{seconds} s does not fit into a Duration, which holds ±{MAX_SECONDS:,} s")
    whole = int(seconds)
    nanos = round((seconds - whole) * _NANOS)
    if abs(nanos) == _NANOS:
        whole, nanos = whole + nanos // _NANOS, 0
    return Duration(seconds=whole, nanos=nanos)


def from_duration(duration: Duration) -> float:
    """Return the seconds of a ``Duration``, as the float nearest to it."""
    return (duration.seconds * _NANOS + duration.nanos) / _NANOS

"""Decisions of the scheduler, without any I/O: how much a server gets, and what follows a failure.

Times are seconds of any clock that never goes back; the caller passes it in.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from amela.common.v1.server_pb2 import Capacity

from amela_client.errors import CallError

MAX_TRIES = 3
"""Tries that an entry gets in all, so that a poison file cannot walk through a fleet."""

_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 30.0
# So many failures on end are no accident of single entries.
_FAILURES_IN_A_ROW = 3
_DEADLINE_SECONDS = 600.0
_DEADLINE_FACTOR = 10.0
_UNKNOWN_AUDIO_SECONDS = 3600.0
_SHORTEST_RACE_SECONDS = 0.5
# What is assumed of a server that has answered nothing yet: real time, which nearly every engine beats.
_UNKNOWN_PACE = 1.0


def backoff(failures: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Choose how long to wait after so many failures on end (1 or more), in seconds.

    Doubles each time; the jitter of one half keeps clients from coming back all at once.
    """
    delay = _BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16)
    return min(delay, _LONGEST_BACKOFF_SECONDS) * uniform(0.5, 1.5)


def call_timeout(audio_seconds: float) -> float:
    """Choose how long one call may take, in seconds; audio of 0 s is of unknown length.

    Generous: it only ends what neither a broken connection nor a race has ended. An engine at a
    tenth of real time, or a queue before one at real time, stays within it.
    """
    return _DEADLINE_SECONDS + _DEADLINE_FACTOR * (audio_seconds or _UNKNOWN_AUDIO_SECONDS)


class Effect(Enum):
    """What a failure means for the server that it came from."""

    NONE = "none"
    FAILED = "failed"
    REST = "rest"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a failure."""

    again: bool
    """Whether the entry gets another try."""
    counts: bool
    """Whether this was a try: nothing was attempted if the server did not take the entry."""
    effect: Effect


def judge(error: CallError, earlier_tries: int) -> Verdict:
    """Decide what follows a failed call of an entry that has failed `earlier_tries` times before."""
    match error.reason:
        case "QUEUE_FULL":
            return Verdict(again=True, counts=False, effect=Effect.REST)
        case "DRAINING" | "BAD_TOKEN" | "UNAUTHENTICATED" | "BAD_CERTIFICATE":
            return Verdict(again=True, counts=False, effect=Effect.SUSPEND)
        # These come without a word from the server: its process or its node may be gone.
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CANCELLED" | "ENGINE_LOST":
            effect = Effect.SUSPEND
        case "RESOURCE_EXHAUSTED" if error.transient:
            effect = Effect.REST
        case _:
            effect = Effect.FAILED if error.transient else Effect.NONE
    return Verdict(again=error.transient and earlier_tries + 1 < MAX_TRIES, counts=True, effect=effect)


class Window:
    """How many calls one server gets at once.

    It follows the capacity that the server advertises: as many as it works on, and as many again
    (if its queue takes them) so that it never idles between two. A refusal halves it at once; each
    window's worth of successes adds one.
    """

    def __init__(self) -> None:
        self.concurrency = 1
        self.in_flight = 0
        self.rests_until = 0.0
        self._ceiling = 1
        self._limit = 1.0
        self._shrunk_at = float("-inf")
        self._refusals = 0
        self._failures = 0
        self._failing_since = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    def resize(self, capacity: Capacity) -> None:
        """Take over what a server advertises when it begins to serve, with a window of that many."""
        self.concurrency = max(1, capacity.concurrency)
        self._ceiling = self.concurrency + min(capacity.queue, self.concurrency)
        self._limit = float(self.concurrency)
        self.rests_until = 0.0
        self._refusals = self._failures = 0

    def is_open(self, now: float) -> bool:
        """Whether the server may get another call."""
        return self.in_flight < int(self._limit) and now >= self.rests_until

    @property
    def would_queue(self) -> bool:
        """Whether another call would wait at the server for one before it."""
        return self.in_flight >= self.concurrency

    def succeeded(self) -> None:
        """Note an answer."""
        self._refusals = self._failures = 0
        if self._limit < self._ceiling:
            self._limit = min(self._ceiling, self._limit + 1.0 / self._limit)

    def refused(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """Note that the server had no place for a call, and let it rest."""
        self._refusals += 1
        # The jitter keeps clients that were refused together from coming back together.
        delay = retry_after * random.uniform(1.0, 1.25) if retry_after else backoff(self._refusals)  # noqa: S311
        self.rests_until = max(self.rests_until, now + delay)
        # Calls sent before the last halving tell nothing about the new size.
        if sent_at >= self._shrunk_at:
            self._limit = max(1.0, min(self._limit, self.in_flight + 1) / 2)
            self._shrunk_at = now

    def failed(self, now: float, last_success: float) -> None:
        """Note a transient failure of the server's own.

        A server that fails one entry after another while others (`last_success` is the time of their
        latest) do not would eat through the tries of many: it gets one at a time, and rests.
        """
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            self._limit = 1.0
            if last_success >= self._failing_since:
                self.rests_until = now + backoff(self._failures - _FAILURES_IN_A_ROW + 1)


class Pace:
    """How long a server takes for a second of audio, of late; long calls weigh more than short ones."""

    def __init__(self) -> None:
        self._audio_seconds = 0.0
        self._elapsed = 0.0

    def observe(self, audio_seconds: float, elapsed: float) -> None:
        """Note one answered call. Audio of 0 s is of unknown length and counts as one second."""
        self._audio_seconds = 0.9 * self._audio_seconds + (audio_seconds or 1.0)
        self._elapsed = 0.9 * self._elapsed + elapsed

    def expect(self, audio_seconds: float) -> float | None:
        """Estimate how long a call takes, in seconds; None before the first."""
        if not self._audio_seconds:
            return None
        return self._elapsed / self._audio_seconds * (audio_seconds or 1.0)

    def longest_within(self, seconds: float) -> float:
        """Estimate the longest audio that a call ends with within so many seconds; real time if unknown."""
        pace = self.expect(1.0)
        return seconds / max(_UNKNOWN_PACE if pace is None else pace, 1e-9)


class Speeds:
    """How fast all servers are, each and together; as of the latest measurement."""

    def __init__(self) -> None:
        self._best_pace = 0.0
        self._audio_seconds_per_second = 0.0

    def measure(self, servers: Iterable[tuple[Pace, int]]) -> None:
        """Look at the servers: the pace of each, and how many calls it gets at once."""
        paces = [(pace, calls) for known, calls in servers if (pace := known.expect(1.0)) is not None]
        self._best_pace = min((pace for pace, _ in paces), default=0.0)
        self._audio_seconds_per_second = sum(calls / max(pace, 1e-9) for pace, calls in paces)

    def longest_suitable(self, server: Pace, waiting: float) -> float | None:
        """Choose the longest audio that a server should begin, in seconds; None if nothing is known of it.

        While others work through what waits now, a place becomes free at the fastest of them. So audio ends
        sooner by waiting for that one if it is so long that ``audio * pace > horizon + audio * best``.

        Parameters
        ----------
        waiting
            Seconds of audio that wait.
        """
        pace = server.expect(1.0)
        if pace is None:
            return None
        if pace <= self._best_pace or not self._audio_seconds_per_second:
            return float("inf")
        return waiting / self._audio_seconds_per_second / (pace - self._best_pace)


def expected_remaining(expected: float, elapsed: float) -> float:
    """Guess how much longer a call takes, in seconds.

    A call past its expected length has no reason to end soon: the longer it has taken, the longer it will.
    """
    return max(expected - elapsed, elapsed / 2)


def worth_racing(expected_here: float, remaining_there: float) -> bool:
    """Whether an idle server should start what another has not finished."""
    return remaining_there > max(expected_here, _SHORTEST_RACE_SECONDS)

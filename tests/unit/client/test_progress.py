import asyncio
import io

from amela_client.progress import (
    PlainDisplay,
    Tally,
    TerminalDisplay,
    clock,
    describe,
    display_for,
    estimate,
    shown,
)
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

lengths = st.lists(st.none() | st.floats(0, 1e5), min_size=1, max_size=30)


def tally_of(lengths: list[float | None], settled: int = 0, servers: int = 2) -> Tally:
    tally = Tally(phase="", count_servers=lambda: servers)
    for length in lengths:
        tally.add(length)
    for length in lengths[:settled]:
        tally.settle(length, 10.0 if length is None else length)
    return tally


def console_of(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100, markup=False), file


def test_half_of_the_audio_done_takes_as_long_again() -> None:
    guess = estimate(tally_of([30.0, 10.0, 40.0], settled=2), elapsed=4.0)
    assert (guess.total_seconds, guess.left_seconds, guess.rtfx, guess.eta) == (80.0, 40.0, 10.0, 4.0)
    assert not guess.guessed


def test_entries_of_unknown_length_count_as_the_average_of_those_done_and_are_shown_as_a_guess() -> None:
    tally = tally_of([None, 30.0, None, None], settled=2)
    guess = estimate(tally, elapsed=1.0)
    assert guess.left_seconds == 2 * (10.0 + 30.0) / 2
    assert guess.guessed
    assert "0:00:40/~0:01:20 of audio" in describe(tally, 1.0)


def test_nothing_is_promised_before_the_first_result() -> None:
    tally = tally_of([30.0])
    assert estimate(tally, elapsed=5.0).eta is None
    assert "time left not known yet" in describe(tally, 5.0)


def test_failures_are_counted_and_leave_the_speed_alone() -> None:
    tally = tally_of([30.0, 1000.0])
    tally.settle(1000.0, None)
    tally.settle(30.0, 30.0)
    assert estimate(tally, elapsed=3.0).rtfx == 10.0
    assert (
        describe(tally, 3.0)
        == "2/2 entries · 0:00:30/0:00:30 of audio · 10.0× real time · 2 servers · 1 failed"
    )


def test_durations_that_were_wrong_in_the_manifest_do_not_make_time_negative() -> None:
    tally = tally_of([1.0, 1.0])
    tally.settle(1.0, 500.0)
    tally.settle(1.0, 500.0)
    guess = estimate(tally, elapsed=10.0)
    assert (guess.left_seconds, guess.eta) == (0.0, 0.0)


@given(lengths, st.data())
def test_an_estimate_can_always_be_made(lengths: list[float | None], data: st.DataObject) -> None:
    settled = data.draw(st.integers(0, len(lengths)))
    tally = tally_of(lengths, settled)
    guess = estimate(tally, data.draw(st.floats(0, 1e6)))
    assert 0 <= guess.left_seconds <= guess.total_seconds
    assert guess.eta is None or guess.eta >= 0
    assert settled < len(lengths) or guess.eta == 0
    assert describe(tally, 1.0).startswith(f"{settled}/{len(lengths)} entries")


def test_times_are_written_in_hours_minutes_and_seconds() -> None:
    assert [clock(value) for value in (0, 59.6, 3600, 100 * 3600)] == [
        "0:00:00",
        "0:01:00",
        "1:00:00",
        "100:00:00",
    ]


def test_before_calls_are_made_the_display_says_what_goes_on() -> None:
    tally = tally_of([1.0])
    tally.phase = "reading the manifest"
    assert describe(tally, 1.0) == "reading the manifest"


def test_where_there_is_no_terminal_lines_are_written_without_control_characters() -> None:
    console, file = console_of(terminal=False)
    display = display_for(console, "vad")
    assert isinstance(display, PlainDisplay)
    tally = tally_of([30.0] * 1000, settled=500)
    display.update(tally)
    display.close(tally)
    assert file.getvalue().startswith("vad: 500/1,000 entries")
    assert file.getvalue().count("\n") == 1
    assert "\x1b" not in file.getvalue()


def test_a_terminal_shows_a_bar_with_the_share_of_audio_seconds() -> None:
    console, file = console_of(terminal=True)
    display = display_for(console, "vad")
    assert isinstance(display, TerminalDisplay)
    display.update(tally_of([]))
    display.update(tally_of([80.0, 20.0], settled=1))
    assert "80%" in file.getvalue()
    assert "1/2 entries" in file.getvalue()
    display.close(tally_of([80.0, 20.0], settled=2))
    assert "100%" in file.getvalue()


async def test_the_display_follows_the_run_and_is_closed_with_it() -> None:
    class Recorder:
        interval = 0.001

        def __init__(self) -> None:
            self.updates: asyncio.Queue[int] = asyncio.Queue()
            self.closed_at: list[int] = []

        def update(self, tally: Tally) -> None:
            self.updates.put_nowait(tally.done)

        def close(self, tally: Tally) -> None:
            self.closed_at.append(tally.done)

    tally, display = tally_of([1.0, 1.0]), Recorder()
    async with shown(tally, display):
        assert await display.updates.get() == 0
        tally.settle(1.0, 1.0)
        assert [await display.updates.get() for _ in range(20)][-1] == 1
        tally.settle(1.0, 1.0)
    updates = display.updates.qsize()
    await asyncio.sleep(0.01)
    assert display.closed_at == [2]
    assert display.updates.qsize() == updates

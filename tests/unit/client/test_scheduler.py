"""The scheduler on fake servers, in virtual time."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from itertools import pairwise

import pytest
from amela_client.backlog import Outcome, Task
from amela_client.errors import CallError, DiscoveryError, MixedModelsError, NoServersError
from amela_client.fleet import Fleet
from amela_client.scheduler import Scheduler
from google.protobuf.wrappers_pb2 import DoubleValue
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fakes.servers import FakeServer, FakeSource, run_in_virtual_time


def task(key: int, seconds: float = 1.0) -> Task:
    return Task(key, DoubleValue(value=seconds), seconds)


async def outcomes_of(
    source: FakeSource, tasks: Iterable[Task | None], **options: float
) -> list[Outcome[float]]:
    async with Scheduler(source, **options) as scheduler:
        return [outcome async for outcome in scheduler.run(tasks)]


def run(source: FakeSource, tasks: Iterable[Task | None], **options: float) -> list[Outcome[float]]:
    return run_in_virtual_time(outcomes_of(source, tasks, **options))


def failing(reason: str, *, transient: bool = True) -> Callable[[float], CallError]:
    return lambda seconds: CallError(reason, "as planned", transient=transient)


def test_every_task_gets_its_own_answer() -> None:
    outcomes = run(FakeSource(FakeServer("a:1"), FakeServer("b:1")), (task(n, n + 1.0) for n in range(50)))
    assert {outcome.key: outcome.response for outcome in outcomes} == {n: n + 1.0 for n in range(50)}
    assert len(outcomes) == 50
    assert all(outcome.error is None and outcome.tries == 1 for outcome in outcomes)


def test_no_tasks_give_no_outcomes() -> None:
    assert run(FakeSource(FakeServer("a:1")), []) == []


def test_places_without_a_task_in_the_source_are_passed_over() -> None:
    tasks = [None, task(0), None, None, task(1), None]
    assert {outcome.key for outcome in run(FakeSource(FakeServer("a:1")), tasks)} == {0, 1}


def test_the_longest_go_first() -> None:
    server = FakeServer("a:1", queue=0)
    # The first one goes to a server that nothing is known of yet.
    outcomes = run(FakeSource(server), (task(n, float(n % 10 + 1)) for n in range(40)))
    lengths = [outcome.seconds for outcome in outcomes][1:]
    assert lengths == sorted(lengths, reverse=True)


def test_a_slow_server_leaves_a_very_long_recording_to_a_fast_one() -> None:
    slow, fast = FakeServer("slow:1", speed=1, queue=0), FakeServer("fast:1", speed=20, queue=0)
    tasks = [*(task(n, 10.0) for n in range(200)), task(200, 500.0)]
    outcomes = run(FakeSource(slow, fast), tasks, lookahead=100)
    assert next(outcome for outcome in outcomes if outcome.key == 200).endpoint == "fast:1"


def test_a_server_gets_what_it_works_on_and_as_much_again_to_keep_it_busy() -> None:
    server = FakeServer("a:1", concurrency=4)
    run(FakeSource(server), [task(n) for n in range(100)])
    assert server.most_in_flight == 8


def test_nothing_waits_at_one_server_while_another_is_free() -> None:
    servers = [FakeServer(f"{name}:1", concurrency=2) for name in "abc"]
    run(FakeSource(*servers), [task(n) for n in range(6)])
    assert [server.answered for server in servers] == [2, 2, 2]


def test_a_task_is_pulled_only_when_there_is_room_for_it() -> None:
    pulled = 0

    def endless() -> Iterator[Task]:
        nonlocal pulled
        while True:
            pulled += 1
            yield task(pulled)

    async def read_a_few() -> None:
        async with (
            Scheduler(FakeSource(FakeServer("a:1")), lookahead=500) as scheduler,
            aclosing(scheduler.run(endless())) as outcomes,
        ):
            for _ in range(10):
                await anext(outcomes)
            await asyncio.sleep(10_000)

    run_in_virtual_time(read_a_few())
    # The look-ahead, what a reader has left unread, and what was on its way.
    assert pulled < 500 + 256 + 64


def test_a_slow_reader_gets_everything() -> None:
    async def read_slowly() -> list[int]:
        keys = []
        async with Scheduler(FakeSource(FakeServer("a:1", speed=100.0, concurrency=8))) as scheduler:
            async for outcome in scheduler.run(task(n) for n in range(2000)):
                keys.append(outcome.key)
                await asyncio.sleep(0.01)
        return keys

    assert sorted(run_in_virtual_time(read_slowly())) == list(range(2000))


def test_large_requests_shorten_the_lookahead() -> None:
    pulled = 0
    large = DoubleValue(value=1.0)
    large.ParseFromString(large.SerializeToString() + b"\x7a" + bytes([0x80, 0x80, 0x40]) + bytes(1 << 20))

    def endless() -> Iterator[Task]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Task(pulled, large)

    async def read_one() -> None:
        async with (
            Scheduler(FakeSource(FakeServer("a:1"))) as scheduler,
            aclosing(scheduler.run(endless())) as outcomes,
        ):
            await anext(outcomes)

    run_in_virtual_time(read_one())
    assert pulled < 80


def test_a_transient_failure_goes_to_another_server() -> None:
    broken, sound = FakeServer("broken:1"), FakeServer("sound:1")
    broken.fault = failing("INTERNAL")
    outcomes = run(FakeSource(broken, sound), [task(n) for n in range(20)])
    assert {outcome.endpoint for outcome in outcomes} == {"sound:1"}
    assert all(outcome.response for outcome in outcomes)


def test_a_poison_file_gets_three_tries_on_different_servers() -> None:
    servers = [FakeServer(f"{name}:1") for name in "abcde"]
    tried: list[str] = []
    for server in servers:
        server.fault = lambda seconds, name=server.name: tried.append(name) or failing("WORKER_LOST")(seconds)  # type: ignore[func-returns-value]
    [outcome] = run(FakeSource(*servers), [task(0)])
    assert outcome.error is not None
    assert outcome.error.reason == "WORKER_LOST"
    assert outcome.tries == 3
    assert len(set(tried)) == len(tried) == 3


def test_a_single_server_gets_all_three_tries() -> None:
    server = FakeServer("a:1")
    server.fault = failing("INTERNAL")
    [outcome] = run(FakeSource(server), [task(0)])
    assert (outcome.tries, outcome.endpoint) == (3, "a:1")


def test_a_permanent_failure_is_not_tried_again() -> None:
    servers = [FakeServer("a:1"), FakeServer("b:1")]
    for server in servers:
        server.fault = failing("AUDIO_NOT_FOUND", transient=False)
    outcomes = run(FakeSource(*servers), [task(n) for n in range(10)])
    assert [(outcome.error is not None, outcome.tries) for outcome in outcomes] == [(True, 1)] * 10


def test_a_full_queue_is_waited_out_without_counting_as_a_try() -> None:
    # Somebody else keeps this server full for a while.
    server = FakeServer("a:1", queue=0)
    refusals = iter([CallError("QUEUE_FULL", "full", transient=True, retry_after=5.0)] * 10)
    server.fault = lambda seconds: next(refusals, None)
    outcomes = run(FakeSource(server), [task(n) for n in range(5)])
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert {outcome.tries for outcome in outcomes} == {1}


def test_a_full_queue_is_left_alone_for_as_long_as_it_asks() -> None:
    server = FakeServer("a:1", queue=0)
    calls: list[float] = []

    def refuse_twice(seconds: float) -> CallError | None:
        calls.append(asyncio.get_running_loop().time())
        full = CallError("QUEUE_FULL", "full", transient=True, retry_after=30.0)
        return full if len(calls) < 3 else None

    server.fault = refuse_twice
    run(FakeSource(server), [task(0)])
    assert [later - earlier >= 30.0 for earlier, later in pairwise(calls)] == [True, True]


def test_a_draining_server_costs_no_try_and_gets_nothing_more() -> None:
    leaving, staying = FakeServer("leaving:1"), FakeServer("staying:1")

    async def drain_on_the_way() -> list[Outcome[float]]:
        source = FakeSource(leaving, staying)
        async with Scheduler(source) as scheduler:
            outcomes = []
            async for outcome in scheduler.run(task(n) for n in range(40)):
                outcomes.append(outcome)
                if len(outcomes) == 10:
                    leaving.is_draining = True
                    source.servers.remove(leaving)
        return outcomes

    outcomes = run_in_virtual_time(drain_on_the_way())
    assert len(outcomes) == 40
    assert {outcome.tries for outcome in outcomes} == {1}
    assert leaving.answered < 10 < staying.answered


def test_what_the_only_server_still_has_when_it_drains_is_waited_for() -> None:
    server = FakeServer("a:1")

    async def drain() -> list[Outcome[float]]:
        asyncio.get_running_loop().call_later(0.5, setattr, server, "is_draining", True)
        return await outcomes_of(FakeSource(server), [task(0, 60.0)])

    assert [outcome.response for outcome in run_in_virtual_time(drain())] == [60.0]


def leaving_at(drains_at: float, name: str = "leaving:1", **options: float) -> FakeServer:
    server = FakeServer(name, **options)  # type: ignore[arg-type]
    server.drains_at = drains_at
    return server


def test_a_server_that_will_drain_gets_only_what_it_can_finish_before() -> None:
    leaving, staying = leaving_at(100.0), FakeServer("staying:1")

    async def end_without_mercy() -> list[Outcome[float]]:
        asyncio.get_running_loop().call_at(101.0, leaving.kill)
        lengths = [10.0] * 20 + [95.0] * 3
        return await outcomes_of(FakeSource(leaving, staying), [task(*item) for item in enumerate(lengths)])

    outcomes = run_in_virtual_time(end_without_mercy())
    assert len(outcomes) == 23
    assert {outcome.tries for outcome in outcomes} == {1}
    assert leaving.answered >= 8


def test_what_no_server_can_finish_waits_for_a_new_one() -> None:
    leaving, new = leaving_at(50.0), FakeServer("new:1")

    async def appear() -> list[Outcome[float]]:
        source = FakeSource(leaving)
        asyncio.get_running_loop().call_later(6.0, source.servers.append, new)
        return await outcomes_of(source, [task(0, 100.0)], patience=10.0)

    [outcome] = run_in_virtual_time(appear())
    assert (outcome.endpoint, outcome.tries) == ("new:1", 1)


def test_what_no_server_can_finish_is_tried_in_the_end_where_there_is_most_time() -> None:
    first, last = leaving_at(50.0, "first:1"), leaving_at(80.0, "last:1", concurrency=4)

    async def try_all() -> list[Outcome[float]]:
        outcomes = []
        with pytest.raises(NoServersError):
            async with Scheduler(FakeSource(first, last), patience=10.0) as scheduler:
                async for outcome in scheduler.run([task(n, 100.0 + n) for n in range(3)]):
                    outcomes.append(outcome)
        return outcomes

    # The shortest has the best chance, and the server for itself.
    [outcome] = run_in_virtual_time(try_all())
    assert (outcome.key, outcome.endpoint) == (0, "last:1")
    assert (first.most_in_flight, last.most_in_flight) == (0, 1)


def test_what_failed_goes_back_to_its_server_if_no_other_can_finish_it() -> None:
    staying, leaving = FakeServer("staying:1"), leaving_at(30.0)
    faults = iter([CallError("INTERNAL", "as planned", transient=True)])
    staying.fault = lambda seconds: next(faults, None)
    [outcome] = run(FakeSource(staying, leaving), [task(0, 40.0)])
    assert (outcome.response, outcome.endpoint, outcome.tries) == (40.0, "staying:1", 2)


def test_a_server_that_will_drain_begins_no_race_that_it_cannot_finish() -> None:
    slow, leaving = FakeServer("slow:1"), leaving_at(20.0, speed=10.0)

    async def race() -> list[Outcome[float]]:
        asyncio.get_running_loop().call_at(21.0, leaving.kill)
        return await outcomes_of(FakeSource(slow, leaving), [task(0, 1000.0), task(1, 1.0), task(2, 1.0)])

    outcomes = run_in_virtual_time(race())
    assert {outcome.tries for outcome in outcomes} == {1}


def test_audio_of_unknown_length_is_given_to_a_server_until_it_drains() -> None:
    [outcome] = run(FakeSource(leaving_at(5.0)), [task(0, 0.0)])
    assert outcome.error is None


def test_what_a_killed_server_had_is_done_elsewhere() -> None:
    victim, survivor = FakeServer("victim:1", concurrency=4), FakeServer("survivor:1", concurrency=4)

    async def kill_on_the_way() -> list[Outcome[float]]:
        async with Scheduler(FakeSource(victim, survivor)) as scheduler:
            asyncio.get_running_loop().call_later(5.5, victim.kill)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(100)])]

    outcomes = run_in_virtual_time(kill_on_the_way())
    assert Counter(outcome.key for outcome in outcomes) == Counter(range(100))
    assert all(outcome.response for outcome in outcomes)
    assert max(outcome.tries for outcome in outcomes) == 2


def test_a_server_that_comes_back_is_used_again() -> None:
    server = FakeServer("a:1")

    async def restart() -> list[Outcome[float]]:
        loop = asyncio.get_running_loop()
        async with Scheduler(FakeSource(server)) as scheduler:
            loop.call_later(2.5, server.kill)
            loop.call_later(6.0, setattr, server, "is_alive", True)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(10)])]

    assert all(outcome.response for outcome in run_in_virtual_time(restart()))


def test_a_server_that_appears_during_a_run_is_used() -> None:
    late = FakeServer("late:1")

    async def start_late() -> list[Outcome[float]]:
        source = FakeSource(FakeServer("early:1"))
        async with Scheduler(source) as scheduler:
            asyncio.get_running_loop().call_later(10.0, source.servers.append, late)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(60)])]

    run_in_virtual_time(start_late())
    assert late.answered > 15


def test_a_vanished_registration_alone_does_not_end_a_server() -> None:
    server = FakeServer("a:1")

    async def unlist() -> list[Outcome[float]]:
        source = FakeSource(server)
        async with Scheduler(source) as scheduler:
            asyncio.get_running_loop().call_later(1.0, source.servers.clear)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(30)])]

    assert all(outcome.response for outcome in run_in_virtual_time(unlist()))


def test_a_registry_that_cannot_be_read_for_a_while_does_not_end_a_run() -> None:
    class FlakySource(FakeSource):
        looks = 0

        async def look(self) -> list[FakeServer]:
            self.looks += 1
            if self.looks > 1:
                raise DiscoveryError("stale file handle")
            return await super().look()

    source = FlakySource(FakeServer("a:1"))
    assert all(outcome.response for outcome in run(source, [task(n) for n in range(20)]))
    assert source.looks > 5


def test_an_idle_server_overtakes_a_silent_one() -> None:
    silent, lively = FakeServer("silent:1"), FakeServer("lively:1")

    async def stop_on_the_way() -> tuple[list[Outcome[float]], float]:
        loop = asyncio.get_running_loop()
        async with Scheduler(FakeSource(silent, lively)) as scheduler:
            loop.call_later(3.5, silent.stop)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(20)])], loop.time()

    outcomes, ended = run_in_virtual_time(stop_on_the_way())
    assert Counter(outcome.key for outcome in outcomes) == Counter(range(20))
    assert ended < 60


def test_a_silent_server_alone_ends_in_deadlines_not_in_a_hang() -> None:
    server = FakeServer("a:1")
    server.stop()
    server.probe = FakeServer("a:1").probe  # type: ignore[method-assign]
    [outcome] = run(FakeSource(server), [task(0)], timeout=lambda seconds: 100.0)
    assert outcome.error is not None
    assert (outcome.error.reason, outcome.tries) == ("DEADLINE_EXCEEDED", 3)


def test_a_server_that_fails_everything_does_not_eat_through_the_tries_of_many() -> None:
    # Both fail at once, and so would pull the fastest.
    servers = [FakeServer(f"broken{n}:1", speed=1e6) for n in range(2)] + [FakeServer("sound:1")]
    for server in servers[:2]:
        server.fault = failing("STORAGE_FAILED")
    outcomes = run(FakeSource(*servers), [task(n) for n in range(200)])
    assert all(outcome.response for outcome in outcomes)


def test_without_any_server_the_run_says_where_it_looked() -> None:
    with pytest.raises(NoServersError, match="a fake cluster"):
        run(FakeSource(), [task(0)])


def test_of_many_dead_servers_the_error_names_a_few() -> None:
    servers = [FakeServer(f"s{n}:1") for n in range(50)]
    for server in servers:
        server.kill()
    with pytest.raises(NoServersError, match="and 45 more"):
        run(FakeSource(*servers), [task(0)])


def test_when_the_last_server_dies_for_good_the_run_ends_after_its_results() -> None:
    server = FakeServer("a:1")

    async def lose_it() -> list[Outcome[float]]:
        outcomes = []
        async with Scheduler(FakeSource(server)) as scheduler:
            asyncio.get_running_loop().call_later(5.5, server.kill)
            with pytest.raises(NoServersError, match="a:1 is down"):
                async for outcome in scheduler.run([task(n) for n in range(100)]):
                    outcomes.append(outcome)
        return outcomes

    outcomes = run_in_virtual_time(lose_it())
    assert [outcome.error for outcome in outcomes] == [None] * 5


def test_servers_that_refuse_this_client_are_not_waited_for() -> None:
    server = FakeServer("a:1")

    async def refuse() -> None:
        raise CallError("BAD_TOKEN", "name the right registry")

    server.probe = refuse  # type: ignore[assignment, method-assign]

    async def attempt() -> float:
        with pytest.raises(CallError, match="name the right registry"):
            await outcomes_of(FakeSource(server), [task(0)], patience=1000.0)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(attempt()) < 10


def test_servers_with_different_models_are_refused() -> None:
    source = FakeSource(FakeServer("a:1", fingerprint="aaaa"), FakeServer("b:1", fingerprint="bbbb"))
    with pytest.raises(MixedModelsError, match=r"(?s)a:1.*aaaa.*b:1.*bbbb"):
        run(source, [task(0)])


def test_servers_with_different_models_serve_together_if_told_to() -> None:
    servers = [FakeServer("a:1", fingerprint="aaaa"), FakeServer("b:1", fingerprint="bbbb")]
    run(FakeSource(*servers), [task(n) for n in range(20)], mix_models=True)
    assert all(server.answered for server in servers)


def test_a_server_with_another_model_that_comes_later_is_not_used() -> None:
    other = FakeServer("other:1", fingerprint="bbbb")

    async def start_late() -> list[Outcome[float]]:
        source = FakeSource(FakeServer("first:1", fingerprint="aaaa"))
        async with Scheduler(source) as scheduler:
            asyncio.get_running_loop().call_later(2.0, source.servers.append, other)
            return [outcome async for outcome in scheduler.run([task(n) for n in range(30)])]

    assert {outcome.endpoint for outcome in run_in_virtual_time(start_late())} == {"first:1"}


def test_what_the_source_of_tasks_raises_reaches_the_reader_after_the_results() -> None:
    def broken() -> Iterator[Task]:
        yield task(0)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(FakeSource(FakeServer("a:1")), broken())


def test_a_fault_in_a_call_reaches_the_reader() -> None:
    with pytest.raises(AssertionError):
        run(FakeSource(FakeServer("a:1")), [Task(0, FakeServer("b:1")._capacity, 1.0)])


def test_closing_a_run_cancels_its_calls() -> None:
    server = FakeServer("a:1", concurrency=4)

    async def close_early() -> int:
        async with Scheduler(FakeSource(server)) as scheduler:
            async with aclosing(scheduler.run([task(n) for n in range(100)])) as outcomes:
                await anext(outcomes)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return len(server._calls)

    assert run_in_virtual_time(close_early()) == 0


def test_a_cancelled_reader_gets_nothing_twice_and_leaves_the_scheduler_usable() -> None:
    server = FakeServer("a:1")
    seen: list[int] = []

    async def interrupted() -> list[Outcome[float]]:
        async with Scheduler(FakeSource(server)) as scheduler:

            async def read() -> None:
                async with aclosing(scheduler.run([task(n) for n in range(50)])) as outcomes:
                    async for outcome in outcomes:
                        seen.append(outcome.key)

            reader = asyncio.create_task(read())
            await asyncio.sleep(10.5)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            return [outcome async for outcome in scheduler.run([task(99)])]

    assert [outcome.key for outcome in run_in_virtual_time(interrupted())] == [99]
    assert len(seen) == len(set(seen)) == 10


def test_closing_the_scheduler_ends_its_runs_with_an_error() -> None:
    async def close_early() -> None:
        async with Scheduler(FakeSource(FakeServer("a:1"))) as scheduler:

            async def read() -> None:
                async for _ in scheduler.run([task(0, 1000.0)]):
                    pass

            reader = asyncio.create_task(read())
            await asyncio.sleep(5)
        with pytest.raises(RuntimeError, match="closed"):
            await reader

    run_in_virtual_time(close_early())


def test_two_runs_share_the_servers() -> None:
    async def both() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        async with Scheduler(FakeSource(FakeServer("a:1"))) as scheduler:

            async def finish(count: int) -> float:
                assert (
                    len([outcome async for outcome in scheduler.run([task(n) for n in range(count)])])
                    == count
                )
                return loop.time()

            return await asyncio.gather(finish(100), finish(5))  # type: ignore[return-value]

    long, short = run_in_virtual_time(both())
    assert short < 15
    assert long > 100


def test_many_single_tasks_at_once_all_end() -> None:
    async def all_at_once() -> list[list[Outcome[float]]]:
        async with Scheduler(FakeSource(FakeServer("a:1", concurrency=2), FakeServer("b:1"))) as scheduler:

            async def one(key: int) -> list[Outcome[float]]:
                return [outcome async for outcome in scheduler.run([task(key)])]

            return await asyncio.gather(*(one(key) for key in range(200)))

    results = run_in_virtual_time(all_at_once())
    assert [[outcome.key for outcome in outcomes] for outcomes in results] == [[key] for key in range(200)]


SERVERS = st.lists(
    st.fixed_dictionaries(
        {
            "speed": st.floats(0.1, 50),
            "concurrency": st.integers(1, 5),
            "queue": st.integers(0, 5),
            "drains_at": st.floats(0, 100) | st.just(math.inf),
        }
    ),
    min_size=1,
    max_size=5,
)
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 60),
        st.integers(0, 4),
        st.sampled_from(["kill", "revive", "drain", "undrain", "fail", "mend"]),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(SERVERS, st.lists(st.floats(0, 30), max_size=60), EVENTS)
def test_every_task_ends_exactly_once_whatever_happens_to_the_servers(
    servers: list[dict[str, float]], lengths: list[float], events: list[tuple[float, int, str]]
) -> None:
    fakes = [leaving_at(name=f"s{n}:1", **options) for n, options in enumerate(servers)]

    def befall(fake: FakeServer, event: str) -> None:
        match event:
            case "kill":
                fake.kill()
            case "revive":
                fake.is_alive = True
            case "drain" | "undrain":
                fake.is_draining = event == "drain"
            case "fail" | "mend":
                fake.fault = failing("INTERNAL") if event == "fail" else lambda seconds: None

    async def live_through_it() -> list[Outcome[float]]:
        loop = asyncio.get_running_loop()
        for at, index, event in events:
            loop.call_later(at, befall, fakes[index % len(fakes)], event)
        # In the end there is always a server.
        loop.call_later(70.0, befall, fakes[0], "revive")
        loop.call_later(70.0, befall, fakes[0], "undrain")
        loop.call_later(70.0, setattr, fakes[0], "drains_at", math.inf)
        async with Scheduler(FakeSource(*fakes), patience=1000.0) as scheduler:
            tasks = [task(key, seconds) for key, seconds in enumerate(lengths)]
            return [outcome async for outcome in scheduler.run(tasks)]

    outcomes = run_in_virtual_time(live_through_it())
    assert sorted(outcome.key for outcome in outcomes) == list(range(len(lengths)))
    for outcome in outcomes:
        assert (outcome.response is None) != (outcome.error is None)
        assert outcome.error is not None or outcome.response == lengths[outcome.key]
        assert 1 <= outcome.tries <= 3


class FaultySource(FakeSource):
    """A source with a fault in one of its methods, but not at the first look."""

    def __init__(self, method: str, *servers: FakeServer) -> None:
        super().__init__(*servers)
        self._method = method
        self._looks = 0

    async def look(self) -> list[FakeServer]:
        self._looks += 1
        if self._method == "look" and self._looks > 1:
            raise RuntimeError("a fault")
        return await super().look()

    def describe(self) -> str:
        if self._method == "describe":
            raise RuntimeError("a fault")
        return super().describe()


@pytest.mark.parametrize("method", ["look", "describe"])
def test_a_fault_of_the_program_ends_the_run_instead_of_stopping_it_for_ever(method: str) -> None:
    server = FakeServer("a:1")
    source = FaultySource(method, server)

    def tasks() -> Iterator[Task]:
        yield task(0)
        server.is_alive = False
        yield task(1)

    with pytest.raises(RuntimeError, match="a fault"):
        run(source, tasks())


def test_a_fault_while_an_answer_is_taken_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def suspend(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Fleet, "suspend", suspend)
    server = FakeServer("a:1")
    server.fault = failing("UNAVAILABLE")
    with pytest.raises(RuntimeError, match="a fault"):
        run(FakeSource(server), [task(0)])

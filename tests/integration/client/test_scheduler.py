"""The scheduler on real servers that are killed, stopped, drained and started."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from amela.asr.v1 import asr_pb2
from amela_client import (
    ASR,
    AmelaClient,
    CallError,
    MixedModelsError,
    NoServersError,
    Outcome,
    SyncAmelaClient,
    Task,
    Transcript,
)

FAKE = [sys.executable, str(Path(__file__).parent / "fake_engine_server.py")]
ENTRIES = 200


def task(key: int, doing: str = "", seconds: float = 1.0) -> Task:
    request = asr_pb2.TranscribeRequest()
    request.audio.path = f"/{doing or f'entry{key}:0.02'}"
    return Task(key, request, seconds)


async def run_through(
    registry: Path,
    tasks: list[Task],
    at: int = 0,
    befall: Callable[[], object] = lambda: None,
    wait: float = 10,
) -> list[Outcome[Transcript]]:
    """Run tasks, and let something happen after so many outcomes."""
    outcomes = []
    async with asyncio.timeout(60), AmelaClient(registry, wait=wait) as client:
        async for outcome in client.transcribe_all(tasks):
            outcomes.append(outcome)
            if len(outcomes) == at:
                befall()
    return outcomes


def assert_all_answered_once(outcomes: list[Outcome[Transcript]], count: int = ENTRIES) -> None:
    assert Counter(outcome.key for outcome in outcomes) == Counter(range(count))
    for outcome in outcomes:
        assert outcome.response is not None, outcome.error
        assert outcome.response.text == f"entry{outcome.key}"


def start_both(start: Callable[..., Any]) -> list[Any]:
    with ThreadPoolExecutor() as threads:
        return list(threads.map(start, [FAKE, FAKE]))


@pytest.fixture(scope="module")
def pair(start_module_server: Any) -> list[Any]:
    """Give two servers to tests that do them no harm."""
    return start_both(start_module_server)


@pytest.fixture
def two(start_server: Any) -> list[Any]:
    """Give two servers to a test that may end them."""
    return start_both(start_server)


async def test_both_servers_work(pair: Any) -> None:
    outcomes = await run_through(pair[0].registry, [task(n) for n in range(ENTRIES)])
    assert_all_answered_once(outcomes)
    assert {outcome.endpoint for outcome in outcomes} == {server.target for server in pair}


async def test_nothing_is_lost_or_doubled_when_a_server_is_killed(two: Any) -> None:
    victim, survivor = two
    outcomes = await run_through(victim.registry, [task(n) for n in range(ENTRIES)], 50, victim.process.kill)
    assert_all_answered_once(outcomes)
    assert {outcome.endpoint for outcome in outcomes[80:]} == {survivor.target}


async def test_nothing_fails_when_a_server_drains(two: Any) -> None:
    leaving, _ = two
    outcomes = await run_through(
        leaving.registry, [task(n) for n in range(ENTRIES)], 50, leaving.process.terminate
    )
    assert_all_answered_once(outcomes)
    assert {outcome.tries for outcome in outcomes} == {1}
    assert leaving.process.wait(30) == 0


async def test_what_a_draining_server_works_on_is_waited_for(two: Any) -> None:
    leaving, _ = two
    # One for each, beside which others end: far longer than it takes to notice that a server drains.
    tasks = [task(n, f"entry{n}:3" if n in {16, 17} else "") for n in range(ENTRIES)]
    outcomes = await run_through(leaving.registry, tasks, 20, leaving.process.terminate)
    assert_all_answered_once(outcomes)
    assert {outcome.tries for outcome in outcomes} == {1}


async def test_a_stopped_server_is_overtaken(two: Any) -> None:
    silent, lively = two
    outcomes = await run_through(
        silent.registry,
        [task(n) for n in range(ENTRIES)],
        50,
        lambda: silent.process.send_signal(signal.SIGSTOP),
    )
    silent.process.kill()
    assert_all_answered_once(outcomes)
    assert {outcome.endpoint for outcome in outcomes[80:]} == {lively.target}


async def test_a_server_started_during_a_run_is_used(start_server: Any) -> None:
    first = start_server(FAKE)
    outcomes = []
    async with asyncio.timeout(60), AmelaClient(first.registry) as client:
        async for outcome in client.transcribe_all(task(n) for n in range(600)):
            outcomes.append(outcome)
            if len(outcomes) == 20:
                second = await asyncio.to_thread(start_server, FAKE)
    assert_all_answered_once(outcomes, 600)
    assert any(outcome.endpoint == second.target for outcome in outcomes)


async def test_what_an_allocation_has_no_time_for_is_done_elsewhere(start_server: Any) -> None:
    # A server that has answered nothing yet is taken to work in real time: it has ten minutes.
    end = str(int(time.time()) + 700)
    leaving = start_server([*FAKE, "--drain-seconds", "100"], SLURM_JOB_ID="17", SLURM_JOB_END_TIME=end)
    staying = start_server(FAKE)
    for seconds, used in ((1000.0, {staying.target}), (500.0, {staying.target, leaving.target})):
        outcomes = await run_through(leaving.registry, [task(n, seconds=seconds) for n in range(ENTRIES)])
        assert_all_answered_once(outcomes)
        assert {outcome.endpoint for outcome in outcomes} == used


async def test_a_run_waits_for_a_server_that_is_restarted(start_server: Any) -> None:
    first = start_server(FAKE)
    restarts = []

    def restart() -> None:
        first.process.kill()
        restarts.append(asyncio.get_running_loop().run_in_executor(None, start_server, FAKE))

    outcomes = await run_through(first.registry, [task(n) for n in range(ENTRIES)], 50, restart, wait=30)
    await restarts[0]
    assert_all_answered_once(outcomes)


async def test_a_run_ends_when_its_only_server_is_gone(start_server: Any) -> None:
    server = start_server(FAKE)
    outcomes = []
    with pytest.raises(NoServersError, match=server.target):
        async with asyncio.timeout(60), AmelaClient(server.registry, wait=1) as client:
            async for outcome in client.transcribe_all(task(n) for n in range(ENTRIES)):
                outcomes.append(outcome)
                if len(outcomes) == 50:
                    server.process.kill()
    assert 50 <= len(outcomes) < ENTRIES


async def test_clients_that_share_a_small_queue_all_finish(start_server: Any) -> None:
    server = start_server([*FAKE, "--concurrency", "1", "--queue", "0"])
    runs = [run_through(server.registry, [task(n) for n in range(30)]) for _ in range(3)]
    for outcomes in await asyncio.gather(*runs):
        assert_all_answered_once(outcomes, 30)
        assert {outcome.tries for outcome in outcomes} == {1}


async def test_good_entries_are_answered_beside_bad_ones(pair: Any) -> None:
    doing = {0: "fail:AUDIO_CORRUPT", 7: "fail:PATH_FORBIDDEN", 11: "fail:INTERNAL"}
    outcomes = await run_through(pair[0].registry, [task(n, doing.get(n, "")) for n in range(30)])
    failed = {outcome.key: outcome for outcome in outcomes if outcome.error}
    assert {key: outcome.error.reason for key, outcome in failed.items() if outcome.error} == {
        0: "AUDIO_CORRUPT",
        7: "PATH_FORBIDDEN",
        11: "INTERNAL",
    }
    assert {key: outcome.tries for key, outcome in failed.items()} == {0: 1, 7: 1, 11: 3}
    assert len(outcomes) == 30


async def test_single_calls_made_together_are_spread_over_the_servers(pair: Any) -> None:
    async with AmelaClient(pair[0].registry) as client:
        transcripts = await asyncio.gather(*(client.transcribe(f"/entry{n}:0.05") for n in range(40)))
        assert client.serving(ASR) == 2
    assert [transcript.text for transcript in transcripts] == [f"entry{n}" for n in range(40)]


async def test_a_single_call_is_tried_elsewhere_when_its_server_is_killed(two: Any) -> None:
    async with AmelaClient(two[0].registry) as client:
        [call] = [asyncio.create_task(client.transcribe("/entry:1.5"))]
        await asyncio.sleep(1.0)
        two[0].process.kill()
        other = asyncio.create_task(client.transcribe("/entry:0.1"))
        assert [(await one).text for one in (call, other)] == ["entry", "entry"]


async def test_a_cancelled_call_frees_its_place_at_the_server(start_server: Any) -> None:
    server = start_server([*FAKE, "--concurrency", "1", "--queue", "0"])
    async with AmelaClient(server.registry) as client:
        call = asyncio.create_task(client.transcribe("/entry:100"))
        await asyncio.sleep(1.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(20):
            assert (await client.transcribe("/entry:0")).text == "entry"


async def test_two_models_are_not_mixed_unless_told_to(start_server: Any) -> None:
    one = start_server([*FAKE, "--fingerprint", "a" * 16])
    start_server([*FAKE, "--fingerprint", "b" * 16])
    with pytest.raises(MixedModelsError, match=r"(?s)aaaa.*bbbb|bbbb.*aaaa"):
        await run_through(one.registry, [task(0)])
    async with AmelaClient(one.registry, mix_models=True) as client:
        assert (await client.transcribe("/entry:0")).text == "entry"
        assert {model.fingerprint for model in await client.models(ASR)} == {"a" * 16, "b" * 16}
    async with AmelaClient(one.registry, [one.target]) as client:
        assert [model.fingerprint for model in await client.models(ASR)] == ["a" * 16]


def test_the_blocking_client_runs_through_the_same_scheduler(pair: Any) -> None:
    with SyncAmelaClient(pair[0].registry) as client:
        assert_all_answered_once(list(client.transcribe_all(task(n) for n in range(40))), 40)
        for outcome in client.transcribe_all(task(n) for n in range(40)):
            assert outcome.error is None
            break
        assert client.transcribe("/entry:0").text == "entry"
        assert client.serving(ASR) == 2
        with pytest.raises(CallError, match="AUDIO_EMPTY"):
            client.transcribe("/fail:AUDIO_EMPTY")

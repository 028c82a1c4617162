"""Many callers, one device, whose memory is a fake."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from amela_common.batching import Batcher, BatchMetrics, Budget, DeviceThread
from amela_common.errors import RequestError
from prometheus_client import CollectorRegistry

from .fake_device import LINEAR, FakeDevice

BUDGET = Budget(100.0)
MAX_WAIT = 0.02


class Bench:
    """A batcher on a fake device that computes only while its gate is open."""

    def __init__(self, device: FakeDevice, budget: Budget = BUDGET, max_wait: float = MAX_WAIT) -> None:
        self.device = device
        self.registry = CollectorRegistry()
        self.gate = threading.Event()
        self.gate.set()
        self.under_way = threading.Event()
        self.threads: set[int] = set()
        self.broken: list[str] = []
        self.thread = DeviceThread("test")
        self.batcher: Batcher[float, float] = Batcher(
            self._compute,
            self.thread,
            device,
            budget,
            max_wait=max_wait,
            metrics=BatchMetrics(self.registry),
            on_broken=self.broken.append,
        )

    def _compute(self, lengths: Sequence[float]) -> Sequence[float | RequestError]:
        self.threads.add(threading.get_ident())
        self.under_way.set()
        self.gate.wait(30)
        return self.device.compute(lengths)

    async def submit(self, seconds: float, caller: object = None, kind: object = None) -> float:
        return await self.batcher.submit(seconds, seconds=seconds, caller=caller or object(), kind=kind)

    async def hold(self) -> "asyncio.Task[float]":
        """Keep the device busy with one item until the gate is opened."""
        self.gate.clear()
        self.under_way.clear()
        task = asyncio.create_task(self.submit(99.0))
        assert await asyncio.to_thread(self.under_way.wait, 30)
        return task

    async def close(self) -> None:
        self.gate.set()
        await self.batcher.close()
        self.thread.close()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(FakeDevice())
    yield bench
    await bench.close()


async def outcomes(*submissions: "asyncio.Future[float] | asyncio.Task[float]") -> list[float | str]:
    results = await asyncio.gather(*submissions, return_exceptions=True)
    return [result.reason if isinstance(result, RequestError) else result for result in results]  # type: ignore[misc]


async def test_items_of_many_callers_share_batches_on_one_thread(bench: Bench) -> None:
    lengths = [1.0 + number / 1000 for number in range(64)]

    assert await asyncio.gather(*map(bench.submit, lengths)) == lengths
    assert len(bench.device.batches) == 1
    assert len(bench.threads) == 1
    assert threading.get_ident() not in bench.threads


async def test_each_gets_its_own_result_at_any_mix_of_lengths_again_and_again(bench: Bench) -> None:
    lengths = [0.2 + 1.37 * (number % 23) + number / 1000 for number in range(200)]
    for _ in range(3):
        assert await asyncio.gather(*map(bench.submit, lengths)) == lengths
    assert sum(map(len, bench.device.batches)) == 600
    assert all(len(batch) == 1 or BUDGET.holds(len(batch), max(batch)) for batch in bench.device.batches)


async def test_a_lone_item_is_computed_without_others() -> None:
    bench = Bench(FakeDevice(), max_wait=0.001)
    assert await bench.submit(2.0) == 2.0
    await bench.close()


async def test_items_gather_while_the_device_is_busy(bench: Bench) -> None:
    first = await bench.hold()
    waiting = [asyncio.create_task(bench.submit(2.0 + number / 100)) for number in range(20)]
    await asyncio.sleep(3 * MAX_WAIT)
    bench.gate.set()
    await asyncio.gather(first, *waiting)

    assert [len(batch) for batch in bench.device.batches] == [1, 20]


async def test_a_cancelled_item_is_dropped_before_the_device(bench: Bench) -> None:
    first = await bench.hold()
    gone = asyncio.create_task(bench.submit(3.0))
    kept = asyncio.create_task(bench.submit(3.5))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    bench.gate.set()
    await asyncio.gather(first, kept)

    assert bench.device.batches == [[99.0], [3.5]]
    assert bench.registry.get_sample_value("amela_batch_dropped_total") == 1


async def test_an_expired_item_is_dropped_before_the_device(bench: Bench) -> None:
    first = await bench.hold()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await bench.submit(3.0)
    bench.gate.set()
    await first

    assert bench.device.batches == [[99.0]]


async def test_cancelling_what_is_being_computed_leaves_its_neighbours(bench: Bench) -> None:
    bench.gate.clear()
    gone, kept = (asyncio.create_task(bench.submit(seconds)) for seconds in (4.0, 5.0))
    assert await asyncio.to_thread(bench.under_way.wait, 30)
    gone.cancel()
    await asyncio.sleep(0)
    bench.gate.set()

    assert await kept == 5.0
    assert bench.device.batches == [[4.0, 5.0]]


async def test_bad_items_fail_alone(bench: Bench) -> None:
    bench.device.poison = {2.5}
    bench.device.refused = {2.25}
    got = await outcomes(*[asyncio.create_task(bench.submit(length)) for length in (2.0, 2.25, 2.5, 2.75)])

    assert got == [2.0, "AUDIO_NOT_FINITE", "INTERNAL", 2.75]


async def test_a_smaller_device_than_thought_still_computes_everything_that_fits() -> None:
    bench = Bench(FakeDevice(limit=LINEAR * 25))
    lengths = [10.0] * 12
    got = await outcomes(*[asyncio.create_task(bench.submit(length)) for length in [*lengths, 40.0]])

    assert got == [*lengths, "OUT_OF_MEMORY"]
    assert not bench.batcher.budget.holds(3, 10.0)
    bench.device.batches.clear()
    assert await asyncio.gather(*map(bench.submit, lengths)) == lengths
    assert [len(batch) for batch in bench.device.batches] == [2] * 6
    await bench.close()


async def test_kinds_do_not_mix(bench: Bench) -> None:
    await asyncio.gather(*(bench.submit(2.0 + number / 10, kind=number % 2) for number in range(6)))

    assert sorted(map(sorted, bench.device.batches)) == [[2.0, 2.2, 2.4], [2.1, 2.3, 2.5]]


async def test_a_clip_does_not_wait_for_the_backlog_of_a_long_recording(bench: Bench) -> None:
    first = await bench.hold()
    recording = [asyncio.create_task(bench.submit(30.0, caller="recording")) for _ in range(30)]
    await asyncio.sleep(0)
    clip = asyncio.create_task(bench.submit(2.0, caller="clip"))
    await asyncio.sleep(0)
    bench.gate.set()
    await asyncio.gather(first, clip, *recording)

    assert [2.0] in bench.device.batches[:3]


async def test_a_lost_device_fails_what_waits_and_what_comes_and_says_so_once(bench: Bench) -> None:
    first = await bench.hold()
    waiting = [asyncio.create_task(bench.submit(length)) for length in (1.0, 40.0)]
    await asyncio.sleep(0)
    bench.device.lost = True
    bench.gate.set()

    assert await outcomes(first, *waiting) == ["ENGINE_LOST"] * 3
    with pytest.raises(RequestError, match="the bus has lost the device") as refused:
        await bench.submit(1.0)
    assert refused.value.reason == "ENGINE_LOST"
    assert len(bench.broken) == 1


class FakeFaultyDevice(FakeDevice):
    """Has a fault where nobody expects one."""

    def is_broken(self, error: BaseException) -> bool:
        raise ZeroDivisionError("a fault of the device's own code")


async def test_any_fault_in_the_computing_of_batches_loses_the_device_rather_than_its_callers() -> None:
    bench = Bench(FakeFaultyDevice())
    bench.device.poison = {2.0}
    first = await bench.hold()
    waiting = [asyncio.create_task(bench.submit(length)) for length in (2.0, 40.0)]
    await asyncio.sleep(0)
    bench.gate.set()

    assert await outcomes(first, *waiting) == [99.0, "ENGINE_LOST", "ENGINE_LOST"]
    with pytest.raises(RequestError, match="a fault of the device's own code"):
        await bench.submit(1.0)
    assert bench.broken == ["""ZeroDivisionError("a fault of the device's own code")"""]
    await bench.close()


async def test_closing_fails_what_waits(bench: Bench) -> None:
    await bench.hold()
    waiting = asyncio.create_task(bench.submit(1.0))
    await asyncio.sleep(0)
    closing = asyncio.create_task(bench.close())

    assert await outcomes(waiting) == ["DRAINING"]
    await closing


async def test_padding_and_batches_are_counted(bench: Bench) -> None:
    await asyncio.gather(bench.submit(4.0), bench.submit(5.0))

    def value(name: str) -> float | None:
        return bench.registry.get_sample_value(name)

    assert (value("amela_batch_items_count"), value("amela_batch_items_sum")) == (1, 2)
    assert (value("amela_batch_seconds_total"), value("amela_batch_padded_seconds_total")) == (9, 10)
    assert (value("amela_batch_waiting"), value("amela_batch_budget_seconds")) == (0, 100)

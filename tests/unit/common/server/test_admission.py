"""Who gets in, who waits, who is refused; and places that move to another admission."""

import asyncio

import pytest
from amela_common.errors import RequestError
from amela_common.server import Admission, Metrics


def queue_depth(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("amela_queue_depth")


async def test_a_place_that_moves_is_free_for_others_while_its_request_waits() -> None:
    metrics = Metrics()
    here, there = Admission(1, 0, metrics), Admission(1, 1, metrics)

    async def move() -> None:
        async with here.admit() as place:
            await place.move_to(there)

    async with there.admit():
        moving = asyncio.create_task(move())
        await asyncio.sleep(0)
        async with here.admit():
            assert queue_depth(metrics) == 1
        assert not moving.done()
    await moving

    assert queue_depth(metrics) == 0
    async with here.admit(), there.admit():
        pass


async def test_a_place_that_cannot_move_is_free_all_the_same_and_left_once() -> None:
    metrics = Metrics()
    here, there = Admission(1, 0, metrics), Admission(1, 0, metrics)
    async with there.admit():
        with pytest.raises(RequestError) as refused:
            async with here.admit() as place:
                await place.move_to(there)
        assert refused.value.reason == "QUEUE_FULL"
        async with here.admit():
            with pytest.raises(RequestError, match="all 1 places"):
                await here.enter()


async def test_a_move_that_is_cancelled_holds_no_place_anywhere() -> None:
    metrics = Metrics()
    here, there = Admission(1, 0, metrics), Admission(1, 1, metrics)

    async def move() -> None:
        async with here.admit() as place:
            await place.move_to(there)

    async with there.admit():
        moving = asyncio.create_task(move())
        await asyncio.sleep(0)
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
    async with here.admit(), there.admit():
        assert queue_depth(metrics) == 0


async def test_the_waiting_calls_of_all_admissions_are_counted_together() -> None:
    metrics = Metrics()
    first, second = Admission(1, 2, metrics), Admission(1, 2, metrics)
    async with first.admit(), second.admit():
        waiting = [asyncio.create_task(admission.enter()) for admission in (first, second, second)]
        await asyncio.sleep(0)
        assert queue_depth(metrics) == 3
    await asyncio.gather(*waiting[:2])

    assert queue_depth(metrics) == 1
    second.leave(1.0)
    await waiting[2]
    assert queue_depth(metrics) == 0


async def test_a_place_passes_by_who_gives_up_at_the_same_moment() -> None:
    admission = Admission(1, 2, Metrics())
    await admission.enter()
    gone, next_one = (asyncio.create_task(admission.enter()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    admission.leave(1.0)

    with pytest.raises(asyncio.CancelledError):
        await gone
    await next_one

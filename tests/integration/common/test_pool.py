import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from amela_common.errors import ConfigError, RequestError
from amela_common.pool import CHECKPOINT, Factory, Handler, WorkerPool


class Worker:
    """Does what a request names, as a real handler would be made: once for each process."""

    def __init__(self, greeting: str = "hello") -> None:
        self._greeting = greeting
        self._answered = 0

    def __call__(self, request: tuple[Any, ...]) -> Iterator[Any]:
        yield from getattr(self, request[0])(*request[1:])
        self._answered += 1

    def greet(self, name: str) -> Iterator[Any]:
        yield f"{self._greeting} {name}"

    def answered(self) -> Iterator[Any]:
        yield os.getpid(), self._answered

    def count(self, items: int, size: int) -> Iterator[Any]:
        for index in range(items):
            yield index, bytes(size)

    def refuse(self) -> Iterator[Any]:
        yield CHECKPOINT
        raise RequestError("AUDIO_EMPTY", "no samples", retry_after=1.5, path="x.wav")

    def divide(self, number: int) -> Iterator[Any]:
        yield number / 0

    def unpicklable(self) -> Iterator[Any]:
        yield lambda: None

    def die(self, how: int) -> Iterator[Any]:
        os.kill(os.getpid(), how)
        yield "still here"

    def work(self, marker: Path, seconds: float) -> Iterator[Any]:
        """Work until told to stop, and leave a word of how it ended."""
        try:
            marker.with_suffix(".started").touch()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.01)
                yield CHECKPOINT
            marker.with_suffix(".finished").touch()
            yield "done"
        finally:
            marker.with_suffix(".left").touch()

    def ignore_checkpoints(self, marker: Path) -> Iterator[Any]:
        marker.with_suffix(".started").touch()
        time.sleep(60)
        yield "too late"


def broken_factory() -> Handler:
    raise ConfigError("the model file is missing: say --model")


def crashing_factory() -> Handler:
    raise ZeroDivisionError("not on purpose")


def dying_factory() -> Handler:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def fragile_factory(marker: Path) -> Handler:
    if marker.exists():
        raise ConfigError("not now")
    return Worker()


@pytest.fixture(autouse=True)
def _workers_can_import_this_module(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(pytestconfig.rootpath)


@asynccontextmanager
async def running(
    factory: Factory = Worker, workers: int = 1, patience: float = 60.0
) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(factory, workers, "test", patience=patience)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (other processes send no events)
        await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def descriptors(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]


async def test_a_call_returns_what_the_handler_yields() -> None:
    async with running(partial(Worker, "good day")) as pool:
        assert await pool.call(("greet", "Ann")) == "good day Ann"


async def test_workers_keep_their_state_and_work_side_by_side() -> None:
    async with running(workers=2) as pool:
        answers = await asyncio.gather(*(pool.call(("answered",)) for _ in range(20)))
        assert {pid for pid, _ in answers} == set(pool.pids)
        assert sum(max(n for p, n in answers if p == pid) + 1 for pid in pool.pids) == 20


async def test_a_stream_keeps_order_and_does_not_run_far_ahead_of_its_reader() -> None:
    async with running() as pool, aclosing(pool.stream(("count", 300, 100_000))) as items:
        worker = psutil.Process(pool.pids[0])
        seen = [await anext(items)]
        await asyncio.sleep(0.3)
        written = worker.io_counters().write_chars
        assert written < 3_000_000
        seen += [item async for item in items]
        assert [index for index, _ in seen] == list(range(300))


async def test_a_large_request_and_a_large_answer_come_through() -> None:
    async with running() as pool:
        name = "x" * 20_000_000
        assert await pool.call(("greet", name)) == f"hello {name}"


async def test_a_refusal_reaches_the_caller_whole() -> None:
    async with running() as pool:
        with pytest.raises(RequestError, match="no samples") as caught:
            await pool.call(("refuse",))
        assert caught.value.reason == "AUDIO_EMPTY"
        assert caught.value.retry_after == 1.5
        assert caught.value.metadata == {"path": "x.wav"}
        assert await pool.call(("greet", "again")) == "hello again"


@pytest.mark.parametrize("request_", [("divide", 1), ("unpicklable",), ("no_such_method",)])
async def test_any_other_exception_is_internal_and_its_traceback_is_logged(
    request_: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as pool:
        with pytest.raises(RequestError) as caught:
            await pool.call(request_)
        assert caught.value.reason == "INTERNAL"
        assert "Traceback" in caplog.text
        assert pool.restarts == 0
        assert await pool.call(("greet", "again")) == "hello again"


async def test_an_unpicklable_request_fails_in_the_caller_and_costs_no_worker() -> None:
    async with running() as pool:
        with pytest.raises((TypeError, AttributeError)):
            await pool.call(("greet", lambda: None))
        assert await pool.call(("greet", "again")) == "hello again"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_worker_that_dies_fails_its_own_request_only_and_is_replaced(how: signal.Signals) -> None:
    async with running(workers=2) as pool:
        before = set(pool.pids)
        others = [asyncio.create_task(pool.call(("greet", str(index)))) for index in range(10)]
        with pytest.raises(RequestError, match=how.name) as caught:
            await pool.call(("die", how))
        assert caught.value.reason == "WORKER_LOST"
        assert await asyncio.gather(*others) == [f"hello {index}" for index in range(10)]
        await until(lambda: len(pool.pids) == 2)
        assert pool.restarts == 1
        assert len(before & set(pool.pids)) == 1
        answers = await asyncio.gather(*(pool.call(("answered",)) for _ in range(10)))
        assert {pid for pid, _ in answers} <= set(pool.pids)


async def test_a_worker_that_dies_idle_fails_nothing() -> None:
    async with running() as pool:
        [pid] = pool.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.restarts)
        assert await pool.call(("greet", "Ann")) == "hello Ann"


async def test_signals_to_the_process_group_leave_workers_alone() -> None:
    async with running() as pool:
        [pid] = pool.pids
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert await pool.call(("greet", "Ann")) == "hello Ann"
        assert pool.pids == [pid]


async def test_a_cancelled_call_stops_at_a_checkpoint_and_gives_its_worker_back(tmp_path: Path) -> None:
    async with running() as pool:
        call = asyncio.create_task(pool.call(("work", tmp_path / "job", 60)))
        await until((tmp_path / "job.started").exists)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pool.busy == 1
        [pid] = pool.pids
        assert await pool.call(("greet", "next")) == "hello next"
        assert pool.pids == [pid]
        assert pool.busy == 0
        assert (tmp_path / "job.left").exists()
        assert not (tmp_path / "job.finished").exists()


async def test_a_cancelled_caller_in_the_queue_costs_no_work(tmp_path: Path) -> None:
    async with running() as pool:
        first = asyncio.create_task(pool.call(("work", tmp_path / "first", 0.2)))
        await until((tmp_path / "first.started").exists)
        second = asyncio.create_task(pool.call(("work", tmp_path / "second", 60)))
        third = asyncio.create_task(pool.call(("greet", "third")))
        await asyncio.sleep(0)
        second.cancel()
        assert await first == "done"
        assert await third == "hello third"
        assert not (tmp_path / "second.started").exists()


async def test_a_stream_left_half_way_gives_its_worker_back() -> None:
    async with running() as pool:
        async with aclosing(pool.stream(("count", 1000, 100_000))) as items:
            await anext(items)
        assert await pool.call(("greet", "next")) == "hello next"


async def test_cancelling_between_the_parts_of_a_message_does_not_mix_up_answers() -> None:
    async with running() as pool:
        for delay in range(30):
            call = asyncio.create_task(pool.call(("count", 1, 3_000_000)))
            await asyncio.sleep(delay / 5000)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert await pool.call(("greet", str(delay))) == f"hello {delay}"
        assert pool.restarts == 0


async def test_an_abandoned_worker_that_never_reaches_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    async with running(patience=0.2) as pool:
        call = asyncio.create_task(pool.call(("ignore_checkpoints", tmp_path / "job")))
        await until((tmp_path / "job.started").exists)
        call.cancel()
        assert await pool.call(("greet", "next")) == "hello next"
        assert pool.restarts == 1


async def test_a_frozen_worker_is_replaced_once_its_caller_has_gone() -> None:
    async with running(patience=0.2) as pool:
        [pid] = pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.call(("greet", "nobody"))
        assert await pool.call(("greet", "next")) == "hello next"
        assert pool.pids != [pid]


async def test_callers_wait_in_the_order_they_came(tmp_path: Path) -> None:
    async with running() as pool:
        order: list[int] = []

        async def ask(index: int) -> None:
            await pool.call(("greet", str(index)))
            order.append(index)

        first = asyncio.create_task(pool.call(("work", tmp_path / "first", 0.1)))
        await until((tmp_path / "first.started").exists)
        await asyncio.gather(*(ask(index) for index in range(20)))
        assert order == list(range(20))
        await first


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (broken_factory, "the model file is missing: say --model"),
        (crashing_factory, "ZeroDivisionError: not on purpose"),
        (dying_factory, "SIGKILL"),
    ],
)
async def test_a_factory_that_fails_is_a_configuration_error_in_its_own_words(
    factory: Factory, words: str
) -> None:
    pool = WorkerPool(factory, 2, "test")
    with pytest.raises(ConfigError, match=words):
        await pool.start()
    assert pool.pids == []


async def test_a_replacement_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    marker = tmp_path / "trouble"
    async with running(partial(fragile_factory, marker)) as pool:
        marker.touch()
        os.kill(pool.pids[0], signal.SIGKILL)
        await until(lambda: not pool.pids)
        call = asyncio.create_task(pool.call(("greet", "patient")))
        await asyncio.sleep(0.3)
        marker.unlink()
        assert await call == "hello patient"


@asynccontextmanager
async def no_more_descriptors() -> AsyncIterator[None]:
    """Let this process open nothing: what a host without memory or processes to give does to a fork."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_replacement_that_the_host_has_no_means_for_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as pool:
        async with no_more_descriptors():
            os.kill(pool.pids[0], signal.SIGKILL)
            await until(lambda: "no new worker" in caplog.text)
        assert await pool.call(("greet", "patient")) == "hello patient"
        assert pool.restarts == 1


async def test_a_pool_that_the_host_has_no_means_for_is_a_configuration_error() -> None:
    pool = WorkerPool(Worker, 2, "test")
    async with no_more_descriptors():
        with pytest.raises(ConfigError, match="no test worker can be started"):
            await pool.start()
    assert pool.pids == []


async def test_close_ends_workers_that_are_idle_and_workers_that_work(tmp_path: Path) -> None:
    async with running(workers=2) as pool:
        pids = pool.pids
        call = asyncio.create_task(pool.call(("work", tmp_path / "job", 60)))
        await until((tmp_path / "job.started").exists)
    with pytest.raises(RequestError, match="died"):
        await call
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_workers_hold_no_descriptor_of_their_parent(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        async with running(workers=2) as pool:
            for pid in pool.pids:
                held = descriptors(pid)
                assert sum(name.startswith("socket:") for name in held) == 1
                assert not any("secret" in name for name in held)


async def test_workers_of_a_killed_parent_end_at_once_even_in_the_middle_of_work(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from amela_common.pool import WorkerPool
        from test_pool import Worker

        async def main():
            pool = WorkerPool(Worker, 2, "test")
            await pool.start()
            print(*pool.pids, flush=True)
            await pool.call(("ignore_checkpoints", Path({str(tmp_path)!r}) / "job"))

        asyncio.run(main())
        """
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        await until((tmp_path / "job.started").exists)
        parent.kill()
    async with asyncio.timeout(10):
        await until(lambda: all(is_gone(pid) for pid in pids))
    assert len(pids) == 2

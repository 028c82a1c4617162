"""Jobs of a launch made more or fewer and ended, also by two commands at once."""

import asyncio
import errno
import fcntl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from amela_client.cluster import control
from amela_client.cluster.control import scale, take_down
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.launch import Launch, create_launch
from amela_client.cluster.plan import ServerPlan
from amela_client.errors import LaunchError

# How long a command is held up for another that may come between.
HOLD_SECONDS = 1.0


@dataclass
class FakeLauncher:
    """Jobs that run until they are cancelled and looked at again."""

    name: str = "slurm"
    known: dict[str, Job] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    hold: threading.Barrier | None = None
    """Where commands wait for each other after they have looked."""
    after_look: Callable[[], None] = lambda: None

    def add(
        self, launch: Launch, state: JobState = JobState.RUNNING, reason: str = "", after: str = ""
    ) -> str:
        id_ = str(len(self.known) + 7)
        self.known[id_] = Job(id_, launch.job_name, state, reason)
        (launch.folder / "jobs" / id_).write_text(after)
        return id_

    def submit(self, script: Path, *, arguments: Sequence[str] = ()) -> str:
        id_ = str(len(self.known) + 7)
        self.known[id_] = Job(id_, f"amela-{script.parent.name}", JobState.RUNNING)
        return id_

    def jobs(self, names: Sequence[str]) -> list[Job]:
        for id_ in self.cancelled:
            self.known[id_] = replace(self.known[id_], state=JobState.ENDED)
        found = [job for job in self.known.values() if job.state is not JobState.ENDED and job.name in names]
        if self.hold:
            try:
                self.hold.wait(HOLD_SECONDS)
            except threading.BrokenBarrierError:
                self.hold = None
        self.after_look()
        return found

    def past(self, ids: Sequence[str]) -> dict[str, Job]:
        raise NotImplementedError

    def kill(self, ids: Sequence[str]) -> None:
        self.cancel(ids)

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled.extend(ids)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    plan = ServerPlan("vad-1", "vad", tmp_path, ())
    return create_launch(plan, "#!/bin/bash\n", launcher="slurm", count=1)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> FakeLauncher:
    launcher = FakeLauncher()
    monkeypatch.setattr(control, "launcher_of", lambda launch: launcher)
    return launcher


async def test_two_commands_that_want_more_do_not_both_start_what_is_missing(
    launch: Launch, launcher: FakeLauncher
) -> None:
    launcher.add(launch)
    launcher.hold = threading.Barrier(2)
    first, second = await asyncio.gather(scale(launch, 4), scale(launch, 4))
    assert sorted([len(first.started), len(second.started)]) == [0, 3]
    assert len(launch.jobs()) == 4


async def test_two_commands_that_end_it_tell_each_job_once_and_both_succeed(
    launch: Launch, launcher: FakeLauncher
) -> None:
    ids = [launcher.add(launch) for _ in range(3)]
    launcher.hold = threading.Barrier(2)
    async with asyncio.timeout(30):
        await asyncio.gather(take_down([launch]), take_down([launch]))
    assert sorted(launcher.cancelled) == ids
    assert not launch.folder.exists()


async def test_a_launch_that_another_command_has_removed_is_down(
    launch: Launch, launcher: FakeLauncher
) -> None:
    launch.remove()
    await take_down([launch])
    with pytest.raises(LaunchError, match="was taken down"):
        await scale(launch, 2)


async def test_a_launch_that_another_command_removes_after_the_look_is_down(
    launch: Launch, launcher: FakeLauncher
) -> None:
    launcher.add(launch, JobState.ENDING)
    launch.tell("7")
    launcher.after_look = lambda: launch.remove() if launch.folder.exists() else None
    async with asyncio.timeout(30):
        await take_down([launch])
    assert launcher.cancelled == []


async def test_without_locks_in_the_file_system_commands_work(
    launch: Launch, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len((await scale(launch, 2)).started) == 2
    await take_down([launch])
    assert not launch.folder.exists()


async def test_a_job_that_was_told_and_is_queued_again_is_taken_off_the_queue(
    launch: Launch, launcher: FakeLauncher
) -> None:
    requeued = launcher.add(launch, JobState.PENDING, "BeginTime")
    launch.tell(requeued)
    async with asyncio.timeout(30):
        await take_down([launch])
    assert launcher.cancelled == [requeued]


async def test_a_job_that_was_told_and_still_runs_is_not_told_again(
    launch: Launch, launcher: FakeLauncher
) -> None:
    running = launcher.add(launch)
    launch.tell(running)

    def end_later() -> None:
        launcher.known[running] = replace(launcher.known[running], state=JobState.ENDED)

    launcher.after_look = end_later
    await take_down([launch])
    assert launcher.cancelled == []


async def test_a_successor_that_would_begin_hours_later_is_replaced(
    launch: Launch, launcher: FakeLauncher
) -> None:
    dead = launcher.add(launch, JobState.ENDED)
    stranded = launcher.add(launch, JobState.PENDING, "BeginTime", after=dead)
    done = await scale(launch, 1)
    assert launcher.cancelled == [stranded]
    assert (done.started, done.told) == (("9",), ())
    assert launch.told() == {stranded}


async def test_a_successor_that_would_begin_hours_later_is_the_first_to_go(
    launch: Launch, launcher: FakeLauncher
) -> None:
    dead, running = launcher.add(launch, JobState.ENDED), launcher.add(launch)
    stranded = launcher.add(launch, JobState.PENDING, "BeginTime", after=dead)
    done = await scale(launch, 1)
    assert (done.started, done.told) == ((), (stranded,))
    assert running not in launch.told()


async def test_a_successor_of_a_job_that_runs_is_left_alone(launch: Launch, launcher: FakeLauncher) -> None:
    running = launcher.add(launch)
    launcher.add(launch, JobState.PENDING, "BeginTime", after=running)
    done = await scale(launch, 2)
    assert (len(done.started), done.told, launcher.cancelled) == (1, (), [])

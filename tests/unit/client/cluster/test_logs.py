import asyncio
from pathlib import Path

import pytest
from amela_client.cluster.launch import Launch, create_launch
from amela_client.cluster.logs import LogLine, follow, jobs_with_logs, last_lines
from amela_client.cluster.plan import ServerPlan
from amela_client.errors import LaunchError
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    plan = ServerPlan("vad-1", "vad", tmp_path, (Path("/data"),))
    launch = create_launch(plan, "", launcher="slurm", count=2)
    for job in ("1", "2"):
        launch.add_job(job)
    return launch


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "1.log"


@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)),
    count=st.integers(0, 12),
    ended=st.booleans(),
)
def test_the_last_lines_are_the_last_of_all_lines(
    log: Path, lines: list[str], count: int, ended: bool
) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    log.write_bytes(text.encode())
    whole = text.removesuffix("\n").split("\n") if text else []
    assert last_lines(log, count) == whole[max(0, len(whole) - count) :]


def test_lines_longer_than_a_block_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [letter * 100_000 for letter in "abcd"]
    path.write_text("\n".join(lines) + "\n")
    assert last_lines(path, 2) == lines[2:]


def test_a_log_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "absent", 3) == []


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\n")
    assert last_lines(tmp_path / "log", 3) == ["\ufffd\ufffd"]


def test_a_job_that_the_launch_does_not_have_is_refused(launch: Launch) -> None:
    assert jobs_with_logs(launch) == ["1", "2"]
    assert jobs_with_logs(launch, "2") == ["2"]
    with pytest.raises(LaunchError, match="vad-1 has no job 3; it has: 1, 2"):
        jobs_with_logs(launch, "3")


async def test_what_is_written_while_logs_are_followed_comes_in_whole_lines(launch: Launch) -> None:
    launch.log("1").write_text("old\nlast\nhal")
    present = {"1", "2"}
    got: list[LogLine] = []

    async def take() -> None:
        async for line in follow(launch, job=None, lines=2, present=lambda: present):
            got.append(line)
            if line.text == "last":
                with launch.log("1").open("a") as file:
                    file.write("f\n")
            if line.text == "half":
                launch.log("2").write_text("late\n")
            if line.text == "late":
                present.clear()

    async with asyncio.timeout(20):
        await take()
    assert got == [LogLine("1", "last"), LogLine("1", "half"), LogLine("2", "late")]


async def test_following_ends_with_a_launch_that_is_taken_down_and_its_jobs_forgotten(launch: Launch) -> None:
    launch.log("1").write_text("last\n")
    present = {"1", "2"}
    got: list[LogLine] = []

    async def take(job: str | None) -> None:
        async for line in follow(launch, job=job, lines=2, present=lambda: present):
            got.append(line)
            present.clear()
            launch.remove(keep_logs=True)

    async with asyncio.timeout(20):
        await take("1")
    assert got == [LogLine("1", "last")]

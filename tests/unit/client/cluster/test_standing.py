"""Each state of a job, and each oddity, from what folder, launcher and registry say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amela_client.cluster.control import choose_to_end, count_alive
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.launch import Exit, Launch, Record
from amela_client.cluster.standing import JobStanding, is_stranded, lines, stand, stand_launch
from amela_client.cluster.verdict import State, advise_on_server
from amela_client.results import Gpu, ServerStatus

NOW = 1_000_000.0
LAUNCH = Launch(
    folder=Path("/r/launches/asr-1"),
    stage="asr",
    launcher="slurm",
    host="login",
    count=1,
    servers_per_job=1,
    gpu_memory_mib=0,
    renew=False,
    created=NOW - 100,
)
RUNNING = Job("7", "amela-asr-1", JobState.RUNNING, node="n1", submitted=NOW - 90, started=NOW - 60)
PENDING = Job("7", "amela-asr-1", JobState.PENDING, "Resources", submitted=NOW - 90)
SERVER = ServerStatus(
    "n1:5000",
    "amela.asr.v1.AsrService",
    reachable=True,
    serving=True,
    heartbeat_age=3,
    registration="asr-n1-abc",
    launch="asr-1/7",
    host="n1",
    started=NOW - 40,
)
DEAD = replace(SERVER, reachable=False, serving=False, heartbeat_age=300, problem="nobody answers")


def one(
    job: Job | None,
    *servers: ServerStatus,
    launch: Launch = LAUNCH,
    past: dict[str, Job] | None = None,
    **record: Any,
) -> JobStanding:
    """Give the standing of job 7, which the launcher knows as `job`."""
    known = [] if job is None else [job]
    record = {"jobs": {"7": ""}, **record}
    [standing] = stand(Record(launch, **record), known, past or {}, servers, now=NOW)
    return standing


def test_a_job_that_waits_says_why_and_how_long() -> None:
    standing = one(PENDING)
    assert standing.state is State.PENDING
    assert standing.words == "Resources: waits for nodes or GPUs to become free"
    assert (standing.queued, standing.starting, standing.since) == (90, None, NOW - 90)
    assert not standing.hopeless


def test_a_job_that_waits_for_ever_says_what_to_do() -> None:
    standing = one(replace(PENDING, reason="PartitionTimeLimit"))
    assert standing.hopeless
    assert standing.advice == "give a shorter --time"


def test_a_job_that_runs_without_a_server_starts() -> None:
    standing = one(RUNNING)
    assert (standing.state, standing.node, standing.advice) == (State.STARTING, "n1", "")
    assert (standing.queued, standing.starting) == (30, 60)


def test_a_job_that_starts_for_long_says_where_to_look() -> None:
    standing = one(replace(RUNNING, started=NOW - 3600))
    assert standing.state is State.STARTING
    assert "amela-client logs asr-1 --job 7" in standing.advice


def test_a_serving_server_makes_its_job_ready_and_the_times_stand_apart() -> None:
    standing = one(RUNNING, SERVER)
    assert (standing.state, standing.advice) == (State.READY, "")
    assert (standing.queued, standing.starting, standing.since) == (30, 20, NOW - 40)
    assert standing.servers == (SERVER,)


def test_a_server_of_another_job_or_launch_makes_nothing_ready() -> None:
    others = [replace(SERVER, launch=label) for label in ("asr-1/8", "asr-11/7", "asr-1/77", "")]
    assert one(RUNNING, *others).state is State.STARTING


def test_a_job_of_several_servers_is_ready_when_all_are() -> None:
    launch = replace(LAUNCH, servers_per_job=2)
    half = one(RUNNING, SERVER, launch=launch)
    assert (half.state, half.words) == (State.STARTING, "1 of 2 servers are ready")
    assert one(RUNNING, SERVER, replace(SERVER, endpoint="n1:5001"), launch=launch).state is State.READY


def test_a_registered_server_that_takes_no_calls_is_unhealthy() -> None:
    ill = replace(SERVER, serving=False, problem="the engine recovers")
    standing = one(RUNNING, ill)
    assert (standing.state, standing.words) == (
        State.UNHEALTHY,
        "registered, but takes no calls: the engine recovers",
    )
    assert "logs asr-1 --job 7" in standing.advice


def test_a_registered_server_that_is_silent_for_long_is_lost_though_its_job_runs() -> None:
    standing = one(RUNNING, DEAD)
    assert (standing.state, standing.words) == (State.LOST, "nobody answers")
    assert "scancel 7; amela-client scale asr-1 1" in standing.advice


def test_a_server_that_is_silent_for_a_moment_is_not_given_up() -> None:
    assert one(RUNNING, replace(DEAD, heartbeat_age=20)).state is State.UNHEALTHY


@pytest.mark.parametrize(
    ("job", "record"),
    [
        (replace(RUNNING, state=JobState.ENDING), {}),
        (RUNNING, {"told": frozenset({"7"})}),
        (RUNNING, {"stopped": True}),
        (replace(RUNNING, started=NOW - 28_700, ends=NOW + 100), {}),
    ],
)
def test_a_job_that_is_to_end_drains(job: Job, record: dict[str, Any]) -> None:
    assert one(job, **record).state is State.DRAINING


def test_a_short_job_that_has_just_begun_does_not_drain() -> None:
    assert one(replace(RUNNING, started=NOW - 2, ends=NOW + 58)).state is State.STARTING


def test_a_server_near_its_end_says_so_unless_it_has_a_successor() -> None:
    job = replace(RUNNING, ends=NOW + 600)
    assert "its time is up in 0:10:00" in one(job, SERVER).advice
    assert one(job, SERVER, launch=replace(LAUNCH, renew=True)).advice == ""
    assert one(replace(job, ends=NOW + 7200), SERVER).advice == ""


def test_a_server_with_less_gpu_memory_than_its_model_needs_says_so() -> None:
    server = replace(SERVER, gpu=Gpu("NVIDIA H200", "GPU-1", 8_000))
    advice = one(RUNNING, server, launch=replace(LAUNCH, gpu_memory_mib=16_000)).advice
    assert "8,000 MiB" in advice
    assert "--per-gpu" in advice
    assert one(RUNNING, server, launch=replace(LAUNCH, gpu_memory_mib=8_000)).advice == ""


def test_a_script_that_ended_well_has_drained() -> None:
    standing = one(None, exits={"7": Exit(0, "")})
    assert (standing.state, standing.words, standing.exit_code) == (State.ENDED, "drained", 0)


def test_a_script_that_failed_says_why_in_its_own_words() -> None:
    standing = one(None, exits={"7": Exit(2, "the image /x cannot be read on n1")})
    assert (standing.state, standing.words, standing.exit_code) == (
        State.FAILED,
        "the image /x cannot be read on n1",
        2,
    )
    assert "logs asr-1 --job 7" in standing.advice


def test_a_server_that_was_killed_may_have_wanted_memory() -> None:
    assert "more --mem" in one(None, exits={"7": Exit(137, "amela-asr ended with exit code 137")}).advice


@pytest.mark.parametrize(
    ("reason", "state", "words"),
    [
        ("TIMEOUT", State.ENDED, "its time was up"),
        ("CANCELLED", State.ENDED, "was cancelled"),
        ("NODE_FAIL", State.LOST, "its node failed"),
        ("OUT_OF_MEMORY", State.FAILED, "took more memory"),
        ("FAILED", State.FAILED, "FAILED"),
        ("DEADLINE", State.FAILED, "DEADLINE"),
    ],
)
def test_without_its_own_words_a_job_ended_as_the_launcher_says(
    reason: str, state: State, words: str
) -> None:
    standing = one(None, past={"7": Job("7", "", JobState.ENDED, reason)})
    assert standing.state is state
    assert words in standing.words


def test_a_job_that_nobody_knows_any_more_is_lost() -> None:
    standing = one(None)
    assert (standing.state, standing.words) == (
        State.LOST,
        "ended without a word: it was killed, or its node was lost",
    )


def test_a_registration_without_its_job_is_to_be_removed() -> None:
    assert "removes the registration that it left" in one(None, DEAD, exits={"7": Exit(0, "")}).advice


def test_a_job_that_was_requeued_waits_again_and_its_queue_is_not_counted_twice() -> None:
    standing = one(replace(PENDING, reason="BeginTime", restarts=1), exits={"7": Exit(1, "")})
    assert (standing.state, standing.queued, standing.restarts) == (State.PENDING, None, 1)


def test_what_died_before_a_job_was_requeued_says_nothing_of_its_new_run() -> None:
    before = replace(DEAD, started=NOW - 5000)
    for job, state in ((replace(PENDING, restarts=1), State.PENDING), (RUNNING, State.STARTING)):
        standing = one(job, before)
        assert (standing.state, standing.servers) == (state, ())
    assert one(RUNNING, before, SERVER).state is State.READY


def test_while_the_launcher_cannot_be_asked_servers_speak_for_their_jobs() -> None:
    record = Record(LAUNCH, {"7": "", "8": ""}, exits={"8": Exit(2, "bad")})
    ready, failed = stand(record, None, {}, [SERVER], now=NOW)
    assert (ready.state, failed.state) == (State.READY, State.FAILED)
    [unknown] = stand(Record(LAUNCH, {"7": ""}), None, {}, [], now=NOW)
    assert unknown.state is State.UNKNOWN


def test_jobs_that_ended_as_they_were_to_are_left_out() -> None:
    record = Record(
        LAUNCH,
        {"7": "", "8": "7", "9": ""},
        told=frozenset({"9"}),
        exits={"7": Exit(0, ""), "9": Exit(0, "")},
    )
    [successor] = stand(record, [replace(RUNNING, id="8")], {}, [], now=NOW)
    assert (successor.job, successor.succeeds) == ("8", "7")


def test_a_successor_that_waits_is_no_missing_server() -> None:
    record = Record(replace(LAUNCH, renew=True), {"7": "", "8": "7"})
    waiting = replace(PENDING, id="8", reason="BeginTime")
    standings = stand(record, [RUNNING, waiting], {}, [SERVER], now=NOW)
    assert [each.state for each in standings] == [State.READY, State.PENDING]
    assert standings[1].words == "takes over from 7 before that one's time is up"
    summed = stand_launch(record, standings)
    assert (summed.ready, summed.advice) == (1, "")


def test_a_successor_whose_predecessor_died_early_says_what_to_do() -> None:
    record = Record(replace(LAUNCH, renew=True), {"7": "", "8": "7"}, exits={"7": Exit(137, "")})
    waiting = replace(PENDING, id="8", reason="BeginTime")
    _, successor = stand(record, [waiting], {}, [], now=NOW)
    assert (successor.state, successor.words) == (
        State.PENDING,
        "was to take over from 7, which has ended already",
    )
    assert "'amela-client scale asr-1 1' starts another in its place" in successor.advice


@pytest.mark.parametrize(
    ("job", "there"),
    [
        # The other one still runs; it waits for a GPU; it was requeued; it succeeds nobody.
        (replace(PENDING, id="8", reason="BeginTime"), {"7", "8"}),
        (replace(PENDING, id="8", reason="Resources"), {"8"}),
        (replace(PENDING, id="8", reason="BeginTime", restarts=1), {"8"}),
        (replace(PENDING, id="7", reason="BeginTime"), {"7"}),
        (replace(RUNNING, id="8"), {"8"}),
    ],
)
def test_a_successor_that_comes_in_time_is_not_stranded(job: Job, there: set[str]) -> None:
    assert not is_stranded(job, {"7": "", "8": "7"}, there)


def test_both_of_a_server_and_its_successor_are_one_that_is_ready() -> None:
    record = Record(replace(LAUNCH, renew=True), {"7": "", "8": "7"})
    jobs = [RUNNING, replace(RUNNING, id="8")]
    servers = [SERVER, replace(SERVER, launch="asr-1/8")]
    assert stand_launch(record, stand(record, jobs, {}, servers, now=NOW)).ready == 1


@pytest.mark.parametrize(
    ("count", "jobs", "stopped", "words"),
    [
        (1, [RUNNING], False, ""),
        (2, [RUNNING], False, "1 of 2 jobs are there: 'amela-client scale asr-1 2'"),
        (1, [], False, "nothing of it runs any more: 'amela-client down asr-1' removes it"),
        (1, [RUNNING], True, "being taken down"),
    ],
)
def test_a_launch_says_what_it_lacks(count: int, jobs: list[Job], stopped: bool, words: str) -> None:
    record = Record(
        replace(LAUNCH, count=count), {"7": "", "8": ""}, stopped=stopped, exits={"8": Exit(1, "")}
    )
    summed = stand_launch(record, stand(record, jobs, {}, [], now=NOW))
    assert words in summed.advice
    assert bool(words) == bool(summed.advice)


def test_successors_stand_in_line_with_whom_they_succeed() -> None:
    assert lines({"1": "", "2": "", "3": "1", "4": "3", "5": "gone"}) == [["1", "3", "4"], ["2"], ["5"]]


@pytest.mark.parametrize(
    ("keep", "ended"),
    [
        (4, []),
        # The one that waits, then the newest, each with its successor before it.
        (3, ["2"]),
        (2, ["2", "3"]),
        (1, ["2", "3", "5", "1"]),
        (0, ["2", "3", "5", "1", "0"]),
    ],
)
def test_fewer_servers_end_those_that_wait_and_then_the_newest(keep: int, ended: list[str]) -> None:
    jobs = {"0": "", "1": "", "2": "", "3": "", "4": "", "5": "1"}
    running, pending = JobState.RUNNING, JobState.PENDING
    present = {"0": running, "1": running, "2": pending, "3": running, "4": running, "5": pending}
    assert choose_to_end(jobs, present, {"4"}, keep=keep) == ended
    assert count_alive(jobs, present, {"4"}) == 4


def test_a_dead_server_that_was_started_by_hand_is_to_be_removed() -> None:
    advice = advise_on_server(DEAD, Path("/r"), NOW)
    assert advice == "nobody answers. If so, remove /r/asr-n1-abc.json"


def test_a_server_that_was_started_by_hand_says_when_its_time_is_nearly_up() -> None:
    assert advise_on_server(SERVER, Path("/r"), NOW) == ""
    assert "in 0:05:00" in advise_on_server(replace(SERVER, ends=NOW + 300), Path("/r"), NOW)

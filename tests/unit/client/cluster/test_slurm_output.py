from pathlib import Path

import pytest
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.slurm_output import (
    compact_tasks,
    cure,
    expand_tasks,
    is_gone,
    is_unanswered,
    is_unreachable,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
    parse_submission,
)
from hypothesis import given
from hypothesis import strategies as st

RECORDED = Path(__file__).parent / "recorded"
WAITING_TASKS = [*range(4, 41), 50, 60, 62, 64, 66, 68, 70, 81]


def recorded(name: str) -> str:
    lines = (RECORDED / f"{name}.txt").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


@pytest.fixture(scope="module")
def queued() -> dict[str, Job]:
    return {job.id: job for job in parse_squeue(recorded("squeue"))}


@pytest.fixture(scope="module")
def accounted() -> dict[str, Job]:
    return {job.id: job for job in parse_sacct(recorded("sacct"))}


@pytest.fixture(scope="module")
def remembered() -> dict[str, Job]:
    return {job.id: job for job in parse_scontrol(recorded("scontrol"))}


@pytest.mark.parametrize("answer", ["123\n", "123;cluster\n", "123"])
def test_submitted_job_is_known_by_its_number_on_any_cluster(answer: str) -> None:
    assert parse_submission(answer) == "123"


@pytest.mark.parametrize("answer", ["", "Submitted batch job 123\n", ";cluster", "12 3"])
def test_what_is_no_submission_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match="no job id"):
        parse_submission(answer)


def test_running_job_tells_its_node_and_times(queued: dict[str, Job]) -> None:
    assert queued["10"] == Job(
        id="10",
        name="amela-asr-3f9a2c",
        state=JobState.RUNNING,
        node="n1",
        submitted=1795368671,
        started=1795368672,
        ends=1795397472,
        restarts=0,
    )


def test_running_job_without_a_time_limit_has_no_end(queued: dict[str, Job]) -> None:
    assert queued["4"].ends is None


def test_requeued_job_counts_its_restarts(queued: dict[str, Job], remembered: dict[str, Job]) -> None:
    assert queued["4"].restarts == 1
    assert remembered["4"].restarts == 1


@pytest.mark.parametrize(
    ("job", "reason"),
    [("14", "BeginTime"), ("15", "JobHeldUser"), ("16", "Dependency"), ("17", "PartitionConfig"), ("13", "")],
)
def test_waiting_job_tells_why(queued: dict[str, Job], job: str, reason: str) -> None:
    assert (queued[job].state, queued[job].reason) == (JobState.PENDING, reason)


def test_start_that_slurm_expects_is_not_taken_for_one_that_was(
    queued: dict[str, Job], remembered: dict[str, Job]
) -> None:
    assert queued["14"].started is None
    assert remembered["14"].started is None


def test_waiting_tasks_of_an_array_come_one_by_one(queued: dict[str, Job]) -> None:
    tasks = [job for job in queued.values() if job.name == "amela-array"]
    waiting = [job.id for job in tasks if job.state is JobState.PENDING]
    assert waiting == [f"5_{task}" for task in WAITING_TASKS]
    assert {job.id for job in tasks if job.state is JobState.RUNNING} == {"5_0", "5_2", "5_3"}


def test_job_that_was_told_to_end_is_ending(queued: dict[str, Job]) -> None:
    assert queued["11"].state is JobState.ENDING


def test_suspended_job_has_not_ended(queued: dict[str, Job]) -> None:
    assert (queued["12"].state, queued["12"].reason) == (JobState.RUNNING, "SUSPENDED")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CONFIGURING", JobState.PENDING),
        ("REQUEUE_HOLD", JobState.PENDING),
        ("STAGE_OUT", JobState.ENDING),
        ("A_STATE_OF_TOMORROW", JobState.RUNNING),
    ],
)
def test_rare_states_are_told_by_their_word(word: str, state: JobState) -> None:
    (job,) = parse_squeue(f"7|{word}|None|n1|1|2|3|0|amela|\n")
    assert (job.state, job.reason) == (state, word)


def test_reason_with_details_is_kept_whole() -> None:
    (job,) = parse_squeue("7|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-2]||1|N/A|N/A|0|amela|\n")
    assert job.reason == "ReqNodeNotAvail, UnavailableNodes:n[1-2]"


def test_bars_in_a_name_stay_in_the_name(accounted: dict[str, Job]) -> None:
    (job,) = parse_squeue("7|RUNNING|None|n1|1|2|3|0|a|b|\n")
    assert job.name == "a|b"
    assert accounted["49"].name == "name|with|bars"


def test_array_that_squeue_cut_short_is_an_error_and_no_fewer_tasks() -> None:
    with pytest.raises(ValueError, match=r"46\.\.\."):
        parse_squeue("5_[6,8,10,46...%3]|PENDING|None||1|N/A|N/A|0|amela|\n")


@pytest.mark.parametrize("parse", [parse_squeue, parse_sacct, parse_scontrol])
@pytest.mark.parametrize("answer", ["slurm_load_jobs error", "1|2|3\n", "JobId=7\n", "CLUSTER: tin\n"])
def test_line_that_is_no_job_is_an_error_that_shows_it(parse, answer: str) -> None:
    with pytest.raises(ValueError, match="no job") as caught:
        parse(answer)
    assert repr(answer.strip()) in str(caught.value)


@pytest.mark.parametrize("parse", [parse_squeue, parse_sacct, parse_scontrol])
def test_empty_answer_is_no_jobs(parse) -> None:
    assert parse("") == []


@pytest.mark.parametrize(
    ("job", "reason", "exit_code"),
    [
        ("41", "COMPLETED", 0),
        ("42", "FAILED", 2),
        ("43", "CANCELLED", None),
        ("44", "CANCELLED", 128 + 15),
        ("45", "TIMEOUT", None),
        ("46", "NODE_FAIL", 1),
        ("47", "OUT_OF_MEMORY", 128 + 125),
        ("48", "PREEMPTED", None),
        ("50_1", "FAILED", 1),
    ],
)
def test_accounting_tells_how_jobs_ended(
    accounted: dict[str, Job], job: str, reason: str, exit_code: int | None
) -> None:
    ended = accounted[job]
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.ENDED, reason, exit_code)


def test_steps_are_no_jobs(accounted: dict[str, Job]) -> None:
    assert not [job for job in accounted if "." in job]


def test_job_that_was_cancelled_while_it_waited_had_no_node(accounted: dict[str, Job]) -> None:
    assert (accounted["43"].node, accounted["43"].started) == ("", None)


def test_job_that_accounting_sees_running_has_no_exit_code(accounted: dict[str, Job]) -> None:
    assert (accounted["49"].state, accounted["49"].exit_code) == (JobState.RUNNING, None)


def test_accounting_lists_waiting_tasks_one_by_one(accounted: dict[str, Job]) -> None:
    waiting = [job.id for job in accounted.values() if job.state is JobState.PENDING]
    assert waiting == ["50_2", "50_3", "50_4", "50_5", "50_9"]


@pytest.mark.parametrize(
    ("job", "reason", "exit_code"),
    [
        ("1", "COMPLETED", 0),
        ("2", "FAILED", 3),
        ("3", "FAILED", 128 + 11),
        ("5_1", "FAILED", 4),
        ("18", "CANCELLED", None),
    ],
)
def test_slurmctld_tells_how_jobs_ended(
    remembered: dict[str, Job], job: str, reason: str, exit_code: int | None
) -> None:
    ended = remembered[job]
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.ENDED, reason, exit_code)


def test_squeue_and_scontrol_tell_the_same_of_jobs_that_are_there(
    queued: dict[str, Job], remembered: dict[str, Job]
) -> None:
    assert queued == {id_: job for id_, job in remembered.items() if job.state is not JobState.ENDED}


def test_name_with_spaces_is_kept(remembered: dict[str, Job]) -> None:
    assert remembered["3"].name == "amela crashed"


def test_array_of_which_nothing_waits_any_more_adds_no_task() -> None:
    line = recorded("scontrol").splitlines()[8]
    assert (
        parse_scontrol(line.replace("ArrayTaskId=4-40,50,60,62,64,66,68,70,81%3", "ArrayTaskId=4294967294"))
        == []
    )


def test_commands_and_comments_do_not_pass_for_fields() -> None:
    line = recorded("scontrol").splitlines()[0]
    (job,) = parse_scontrol(f"{line} Comment=JobState=FAILED ExitCode=9:0")
    assert (job.reason, job.exit_code) == ("COMPLETED", 0)


@pytest.mark.parametrize(
    ("ranges", "tasks"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-29:10", [0, 10, 20]),
        ("3,17", [3, 17]),
        ("17,3,3-4", [3, 4, 17]),
        ("0-1,33,40-45:2%4", [0, 1, 33, 40, 42, 44]),
    ],
)
def test_ranges_of_tasks_are_read_as_sbatch_does(ranges: str, tasks: list[int]) -> None:
    assert expand_tasks(ranges) == tasks


@pytest.mark.parametrize(
    "ranges", ["", "a", "3-1", "1-", "-1", "1,,2", "1-9:0", "1-9:", "1%", "1%x", "1 2", "1..."]
)
def test_what_is_no_range_is_an_error_that_shows_it(ranges: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a range") as caught:
        expand_tasks(ranges)
    assert repr(ranges) in str(caught.value)


@given(st.sets(st.integers(0, 4_000_000), min_size=1))
def test_compact_tasks_expand_to_the_same(tasks: set[int]) -> None:
    assert expand_tasks(compact_tasks(tasks)) == sorted(tasks)


@given(st.integers(0, 1000), st.integers(1, 10_000))
def test_neighbours_are_written_as_one_range(first: int, more: int) -> None:
    assert compact_tasks(range(first, first + more + 1)) == f"{first}-{first + more}"


def test_no_tasks_are_written_as_nothing() -> None:
    assert compact_tasks([]) == ""


REFUSED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (f"{REFUSED}Requested node configuration is not available", "ask for less"),
        ("sbatch: error: Invalid generic resource (gres) specification", "no GPUs of this name"),
        (f"{REFUSED}Invalid partition name specified", "sinfo -s"),
        (f"{REFUSED}Invalid feature specification", "no node has this"),
        ("sbatch: error: Invalid --time specification", "8:00:00"),
        (f"{REFUSED}Requested time limit is invalid (missing or exceeds some limit)", "less time"),
        (f"{REFUSED}Invalid account or account/partition combination specified", "sacctmgr"),
        (f"{REFUSED}Invalid qos specification", "sacctmgr"),
        (
            f"{REFUSED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "wait for your other jobs",
        ),
    ],
)
def test_refusal_comes_with_what_can_be_done(refusal: str, words: str) -> None:
    assert words in cure(refusal)


def test_unknown_refusal_comes_without_advice() -> None:
    assert cure(f"{REFUSED}The moon is full") == ""


def test_slurm_that_is_away_is_told_from_one_that_is_slow_and_a_job_that_is_gone() -> None:
    away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    slow = "slurm_load_jobs error: Socket timed out on send/recv operation"
    gone = "scancel: error: Kill job error on job id 999999: Invalid job id specified"
    for judge, words in ((is_unreachable, away), (is_unanswered, slow), (is_gone, gone)):
        assert [each for each in (away, slow, gone) if judge(each)] == [words]

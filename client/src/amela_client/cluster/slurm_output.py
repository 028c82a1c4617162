"""What SLURM's programs answer, read: text in, values out."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from amela_client.cluster.jobs import Job, JobState

ENVIRONMENT: Final = {
    # Seconds since the epoch, which know no time zone.
    "SLURM_TIME_FORMAT": "%s",
    # Arrays' ranges in full: by default they are cut to 64 characters.
    "SLURM_BITSTR_LEN": "0",
}
"""What `squeue`, `sacct` and `scontrol` must find in their environment to answer as is read here."""

SQUEUE_FORMAT: Final = (
    "JobArrayID:|,State:|,Reason:|,NodeList:|,SubmitTime:|,StartTime:|,EndTime:|,RestartCnt:|,Name:|"
)
"""For ``squeue --noheader --Format``: fields by their names in its manual page, each ended by a bar."""

SACCT_FORMAT: Final = "JobID,State,ExitCode,NodeList,Submit,Start,End,JobName"
"""For ``sacct --noheader --parsable2 --format``: fields by their names in its manual page."""

# "JOB STATE CODES" in the manual pages of squeue and sacct.
_STATES: Final = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED"), JobState.PENDING),
    **dict.fromkeys(("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"), JobState.PENDING),
    **dict.fromkeys(("COMPLETING", "STAGE_OUT"), JobState.ENDING),
    **dict.fromkeys(("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"), JobState.ENDED),
    **dict.fromkeys(("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"), JobState.ENDED),
}
# RUNNING, SUSPENDED, STOPPED, RESIZING, SIGNALING, and whatever comes with newer SLURMs.
_ANY_OTHER_STATE: Final = JobState.RUNNING

# What scontrol shows of an array when none of its tasks waits any more: SLURM's "no value".
_NO_TASKS: Final = "4294967294"

_NODES: Final = "'sinfo -o \"%P %G %c %m %f\"' lists each partition's GPUs, CPUs, memory and features"
_ACCOUNTS: Final = "'sacctmgr show associations user=$USER format=account,partition,qos' lists yours"
_CURES: Final = (
    ("configuration is not available", f"no node has all of this: ask for less, or elsewhere; {_NODES}"),
    ("generic resource (gres)", f"the cluster has no GPUs of this name; {_NODES}"),
    ("nvalid feature", f"no node has this; {_NODES}"),
    ("nvalid partition name", "'sinfo -s' lists the partitions"),
    ("nvalid account", _ACCOUNTS),
    ("nvalid qos", _ACCOUNTS),
    ("time limit is invalid", "ask for less time; 'sinfo -s' lists the partitions' limits"),
    ("nvalid --time specification", "write a time as 8:00:00 or 1-12:00:00"),
    ("policy", f"wait for your other jobs to end, or ask for less; {_ACCOUNTS}"),
)


def parse_submission(answer: str) -> str:
    """Read the job's id from ``sbatch --parsable``, whose answer is ``ID`` or ``ID;CLUSTER``.

    Raises
    ------
    ValueError
        It is neither.
    """
    job = answer.strip().partition(";")[0]
    if not job.isdecimal():
        raise ValueError(f"sbatch answered {answer!r}, which holds no job id")
    return job


def parse_squeue(answer: str) -> list[Job]:
    """Read what `squeue` answers to `SQUEUE_FORMAT`, the waiting tasks of an array one by one.

    Raises
    ------
    ValueError
        A line is something else.
    """
    jobs = []
    for line in answer.splitlines():
        fields = line.removesuffix("|").split("|", 8)
        if len(fields) != 9:
            raise ValueError(f"squeue answered {line!r}, which is no job")
        ids, word, reason, node, *times, restarts, name = fields
        jobs += _jobs(ids, word, name=name, reason=reason, node=node, times=times, restarts=int(restarts))
    return jobs


def parse_sacct(answer: str) -> list[Job]:
    """Read what `sacct` answers to `SACCT_FORMAT`, without jobs' steps (``123.batch``, ``123.0``, …).

    Raises
    ------
    ValueError
        A line is something else.
    """
    jobs = []
    for line in answer.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8:
            raise ValueError(f"sacct answered {line!r}, which is no job")
        ids, words, code, node, *times, name = fields
        if "." not in ids:
            # "CANCELLED by 1000" says who did it.
            word = words.partition(" ")[0]
            jobs += _jobs(ids, word, name=name, node=node, times=times, exit_code=code)
    return jobs


def parse_scontrol(answer: str) -> list[Job]:
    """Read what ``scontrol --oneliner show job`` answers: a line for each job and each task of an array.

    Raises
    ------
    ValueError
        A line is something else.
    """
    jobs = []
    for line in answer.splitlines():
        match = re.fullmatch(r"(JobId=.*?) JobName=(.*?) (UserId=.* JobState=.*)", line)
        if match is None:
            raise ValueError(f"scontrol answered {line!r}, which is no job")
        # Of two with one name, the first is SLURM's; further ones stand in a command or a comment.
        fields = dict(reversed(re.findall(r"(\w+)=(\S*)", f"{match[1]} {match[3]}")))
        ids = fields["JobId"]
        if "ArrayJobId" in fields:
            ids = f"{fields['ArrayJobId']}_[{fields['ArrayTaskId']}]"
        jobs += _jobs(
            ids,
            fields["JobState"],
            name=match[2],
            reason=fields["Reason"],
            node=fields["NodeList"],
            times=[fields[f"{event}Time"] for event in ("Submit", "Start", "End")],
            restarts=int(fields["Restarts"]),
            exit_code=fields["ExitCode"],
        )
    return jobs


def expand_tasks(ranges: str) -> list[int]:
    """List the tasks of an array that ``--array`` names, as in ``0-29,33,40-50:2%4``, in order.

    Raises
    ------
    ValueError
        A part of it is neither a number nor a range.
    """
    tasks: set[int] = set()
    for part in re.sub(r"%\d+$", "", ranges).split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part)
        found = range(0)
        if match:
            first, last, step = match.groups()
            found = range(int(first), int(last or first) + 1, int(step or 1))
        if not found:
            raise ValueError(f"{part!r} in {ranges!r} is neither a number nor a range as 0-29 or 0-29:2")
        tasks.update(found)
    return sorted(tasks)


def compact_tasks(tasks: Iterable[int]) -> str:
    """Write tasks of an array as ``--array`` takes them: ``0-29,33``."""
    runs = []
    # Within a run, a task's number grows as its place does.
    for _, run in groupby(enumerate(sorted(set(tasks))), key=lambda placed: placed[1] - placed[0]):
        numbers = [number for _, number in run]
        runs.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0]))
    return ",".join(runs)


def is_unreachable(words: str) -> bool:
    """Tell whether a program failed because slurmctld could not be reached: nothing was done."""
    return "Unable to contact slurm controller" in words


def is_unanswered(words: str) -> bool:
    """Tell whether slurmctld did not answer in time: what was asked for may be done all the same."""
    return "Socket timed out" in words or "Zero Bytes were transmitted" in words


def is_gone(words: str) -> bool:
    """Tell whether a program failed because SLURM has no such job any more."""
    return "Invalid job id specified" in words or "already completing or completed" in words


def cure(refusal: str) -> str:
    """Say what can be done about `sbatch`'s refusal, or nothing if its words are unknown."""
    return next((cure for words, cure in _CURES if words in refusal), "")


def _jobs(
    ids: str,
    word: str,
    *,
    name: str,
    reason: str = "None",
    node: str,
    times: Sequence[str],
    restarts: int | None = None,
    exit_code: str = "",
) -> list[Job]:
    state = _STATES.get(word, _ANY_OTHER_STATE)
    submitted, started, ends = (float(time) if time.isdecimal() else None for time in times)
    if state is JobState.PENDING:
        # These are when SLURM expects it to start and to end.
        started = ends = None
    if state is not JobState.PENDING or reason == "None":
        reason = "" if word in ("PENDING", "RUNNING", "COMPLETING") else word
    return [
        Job(
            id=job,
            name=name,
            state=state,
            reason=reason,
            node="" if node in ("(null)", "None assigned") else node,
            submitted=submitted,
            started=started,
            ends=ends,
            restarts=restarts,
            exit_code=_exit_code(word, exit_code) if state is JobState.ENDED else None,
        )
        for job in _expand_ids(ids)
    ]


def _expand_ids(ids: str) -> list[str]:
    match = re.fullmatch(r"(\d+)_\[(.*)\]", ids)
    if match is None:
        return [ids]
    return [f"{match[1]}_{task}" for task in expand_tasks(match[2])] if match[2] != _NO_TASKS else []


def _exit_code(word: str, code: str) -> int | None:
    """Read ``STATUS:SIGNAL``. A job that did not complete can have 0:0, which says nothing."""
    match = re.fullmatch(r"(\d+):(\d+)", code)
    if match is None:
        return None
    status, number = int(match[1]), int(match[2])
    return 128 + number if number else status or (0 if word == "COMPLETED" else None)

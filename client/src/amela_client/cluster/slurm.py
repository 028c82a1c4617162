"""SLURM as a launcher, through the programs that every cluster has."""

import os
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from amela_client.cluster import slurm_output
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.script import variables_against
from amela_client.errors import SlurmError, SubmissionError

_ANSWER_SECONDS = 60
_PAUSE_SECONDS = 2
_OTHERS = ("SLURM_", "SQUEUE_", "SACCT_", "SCANCEL_")


class _CommandError(Exception):
    """A program of SLURM's failed, with its words."""

    def __init__(self, words: str, *, answered: bool = True) -> None:
        super().__init__(words)
        self.answered = answered


class SlurmLauncher:
    """Runs jobs on the cluster that this machine belongs to.

    Parameters
    ----------
    patience
        Seconds for which a SLURM that does not answer is asked again: slurmctld restarts now and then.
    """

    name = "slurm"

    def __init__(self, *, patience: float = 60) -> None:
        self._patience = patience

    def submit(self, script: Path, *, arguments: Sequence[str] = ()) -> str:
        """Hand in a script with ``#SBATCH`` lines, with options for `sbatch` besides; answer the job's id.

        Raises
        ------
        SubmissionError
            SLURM refuses it; the message has its words and what to do.
        SlurmError
            SLURM cannot be reached.
        """
        try:
            # After one that was not answered, another try could make two jobs of it.
            answer = self._run(
                *("sbatch", "--parsable", *arguments, str(script)),
                without=variables_against(script),
                repeatable=False,
            )
            return slurm_output.parse_submission(answer)
        except _CommandError as error:
            if not error.answered:
                raise SlurmError(
                    f"SLURM did not say whether it took {script} ({error}): 'squeue --me' tells"
                ) from error
            cure = slurm_output.cure(str(error))
            raise SubmissionError(
                f"SLURM refuses {script}: {error}" + (f"\n{cure}" if cure else "")
            ) from error
        except ValueError as error:
            _misunderstood(error)

    def jobs(self, names: Sequence[str]) -> list[Job]:
        """List this user's jobs of exactly these names that wait, run or are ending.

        Raises
        ------
        SlurmError
            SLURM cannot be asked.
        """
        if not names:
            return []
        filters = (f"--user={os.getuid()}", f"--name={','.join(names)}")
        try:
            answer = self._run("squeue", "--noheader", *filters, f"--Format={slurm_output.SQUEUE_FORMAT}")
            return slurm_output.parse_squeue(answer)
        except _CommandError as error:
            raise SlurmError(f"squeue failed: {error}") from error
        except ValueError as error:
            _misunderstood(error)

    def past(self, ids: Sequence[str]) -> dict[str, Job]:
        """Tell how jobs ended, from accounting, or from slurmctld, which forgets them within minutes.

        Raises
        ------
        SlurmError
            SLURM cannot be asked.
        """
        if not ids:
            return {}
        try:
            jobs = self._accounted(ids)
            for job in ids:
                if job not in jobs:
                    jobs |= self._remembered(job)
        except ValueError as error:
            _misunderstood(error)
        return {id_: job for id_, job in jobs.items() if job.state is JobState.ENDED}

    def cancel(self, ids: Sequence[str]) -> None:
        """Take jobs that wait off the queue, and send SIGTERM to the scripts of those that run.

        SLURM's own end (`kill`) leaves them KillWait, 30 s by default, which is too short to drain.

        Raises
        ------
        SlurmError
            SLURM cannot be asked.
        """
        # In this order: one that starts in between gets the second.
        self._cancel("--state=PENDING", ids=ids)
        self._cancel("--state=RUNNING", "--batch", "--signal=TERM", ids=ids)

    def kill(self, ids: Sequence[str]) -> None:
        """End jobs by SLURM's own means: SIGTERM to all of it, SIGKILL after KillWait.

        Raises
        ------
        SlurmError
            SLURM cannot be asked.
        """
        self._cancel(ids=ids)

    def _cancel(self, *options: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        try:
            self._run("scancel", *options, *ids)
        except _CommandError as error:
            # One line for each job; those that are gone are as wished.
            failures = [line for line in str(error).splitlines() if not slurm_output.is_gone(line)]
            if failures:
                raise SlurmError(f"scancel failed: {' '.join(failures)}") from error

    def _accounted(self, ids: Sequence[str]) -> dict[str, Job]:
        options = (
            "--noheader",
            "--parsable2",
            f"--jobs={','.join(ids)}",
            f"--format={slurm_output.SACCT_FORMAT}",
        )
        try:
            answer = self._run("sacct", *options, repeatable=False)
        except _CommandError:
            # The cluster keeps no accounts, or their database is away.
            return {}
        return {job.id: job for job in slurm_output.parse_sacct(answer)}

    def _remembered(self, job: str) -> dict[str, Job]:
        try:
            answer = self._run("scontrol", "--oneliner", "show", "job", job)
        except _CommandError as error:
            if slurm_output.is_gone(str(error)):
                return {}
            raise SlurmError(f"scontrol failed: {error}") from error
        return {job.id: job for job in slurm_output.parse_scontrol(answer)}

    def _run(
        self,
        program: str,
        *arguments: str,
        without: Collection[str] = (),
        repeatable: bool = True,
    ) -> str:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return _run_once(program, *arguments, without=without)
            except _CommandError as error:
                if (error.answered or not repeatable) and not slurm_output.is_unreachable(str(error)):
                    raise
                if time.monotonic() > deadline:
                    raise SlurmError(f"SLURM does not answer: {error}") from error
            time.sleep(_PAUSE_SECONDS)


def _run_once(program: str, *arguments: str, without: Collection[str]) -> str:
    # Settings of a job around this process, and a user's own for squeue, would change the answers.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OTHERS) and name not in without
    }
    if "SLURM_CONF" in os.environ:
        environment["SLURM_CONF"] = os.environ["SLURM_CONF"]
    if program != "sbatch":
        environment |= slurm_output.ENVIRONMENT
    try:
        done = subprocess.run(  # noqa: S603  # SLURM's own programs, no shell
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_SECONDS,
            check=False,
            # A Ctrl-C at the terminal does not end it halfway.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{program} is not on PATH here: run this where the cluster takes jobs (a login node),"
            " or take --launcher local"
        ) from None
    except subprocess.TimeoutExpired as error:
        raise _CommandError(f"{program} took more than {_ANSWER_SECONDS} s", answered=False) from error
    if done.returncode != 0:
        words = done.stderr.strip() or f"{program} ended with exit code {done.returncode}"
        raise _CommandError(words, answered=not slurm_output.is_unanswered(words))
    return done.stdout


def _misunderstood(error: ValueError) -> NoReturn:
    raise SlurmError(f"SLURM's answer is not as expected: {error}") from error

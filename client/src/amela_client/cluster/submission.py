"""A whole manifest as a job array, and a job after it that puts the results together."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amela_client.atomic_file import replacing
from amela_client.cluster.array_run import ArrayRun
from amela_client.cluster.jobs import Job, JobState, Launcher
from amela_client.cluster.plan import ServerPlan
from amela_client.cluster.script import exports, render, sbatch_options
from amela_client.cluster.slurm_output import compact_tasks
from amela_client.cluster.task_state import TaskState
from amela_client.errors import LaunchError, SetupError, SlurmError, SubmissionError
from amela_client.manifest import Manifest


def run_folder(output: Path) -> Path:
    """Return where the run lies whose results go to `output`: ``done.run`` beside ``done.json``."""
    return output.with_name(f"{output.stem}.run")


def run_name(stage: str, folder: Path) -> str:
    """Return how the jobs of a run are called, but for ``amela-`` before it; no other run's are."""
    return f"{stage}-{hashlib.blake2b(str(folder.absolute()).encode(), digest_size=4).hexdigest()}"


@dataclass(frozen=True)
class Submission:
    """What the jobs of a run are.

    Attributes
    ----------
    run
        What was shared out.
    server
        What each task's server runs as; its name is that of the run.
    stage
        What the tasks do: the name of a command.
    options
        Of that command, as they are typed.
    output
        Where the results of all tasks go.
    effective
        Everything that changes results, as JSON values.
    table
        Where vad's table goes.
    programs
        Folder of this client's program, for tasks without `client_image`.
    audio_roots
        Folders that the servers may read, if not all.
    concurrent
        How many tasks may run at the same time. None: all.
    """

    run: ArrayRun
    server: ServerPlan
    stage: str
    options: tuple[str, ...]
    output: Path
    effective: Mapping[str, object]
    table: Path | None = None
    programs: Path | None = None
    client_image: Path | None = None
    audio_roots: tuple[Path, ...] = ()
    concurrent: int | None = None

    @property
    def job_name(self) -> str:
        """How the array is called."""
        return f"amela-{self.server.name}"

    @property
    def merge_name(self) -> str:
        """How the job is called that puts the results together."""
        return f"{self.job_name}-merge"

    def array_script(self) -> str:
        """Write the script of the tasks.

        Raises
        ------
        SetupError
            If a value cannot be written into a script.
        """
        options = [line for line in sbatch_options(self.server) if not line[0].startswith("--output=")]
        variables = exports(self.server) | self._variables | {
            "AMELA_AUDIO_ROOT": ":".join(map(str, self.audio_roots)) or None,
            "AMELA_SERVER_OPTIONS": shlex.join(self.server.options) or None,
        }  # fmt: skip
        # The task's own server is nobody else's.
        for name in ("AMELA_STAGE", "AMELA_REGISTRY", "AMELA_RENEW", "AMELA_LAUNCH_FOLDER"):
            del variables[name]
        return render(
            "array.slurm",
            [*options, self._log("%A_%a.log")],
            variables,
            [self.stage, str(self.run.folder), "--", *self.options],
            programs=self.programs,
        )

    def merge_script(self) -> str:
        """Write the script that puts the results together; raises as `array_script` does."""
        server = self.server
        single = {"--partition": server.partition, "--account": server.account, "--qos": server.qos}
        options = [[f"{name}={value}"] for name, value in single.items() if value]
        table = ["--csv", str(self.table)] if self.table else []
        return render(
            "merge.slurm",
            [
                [f"--job-name={self.merge_name}"],
                *options,
                ["--open-mode=append"],
                ["--requeue"],
                self._log("merge-%j.log"),
            ],
            {
                "AMELA_SITE": "",
                "AMELA_BINDS": ",".join(server.binds),
                "AMELA_MODULES": " ".join(server.modules),
                **self._variables,
            },
            [str(self.run.folder), str(self.output), *table],
            programs=self.programs,
        )

    @property
    def _variables(self) -> dict[str, str | None]:
        return {"AMELA_CLIENT_IMAGE": str(self.client_image) if self.client_image else None}

    def _log(self, name: str) -> list[str]:
        return [f"--output={self.run.folder}/logs/{name}"]


@dataclass(frozen=True)
class Submitted:
    """How a run stands after it was submitted.

    Attributes
    ----------
    states
        How far each task was before.
    tasks, job
        What was submitted now, and as which job.
    queued, queued_jobs
        Tasks that were waiting or running already, and as which jobs.
    merge
        The job that puts the results together; None if that is done.
    """

    states: Sequence[TaskState]
    tasks: Sequence[int] = ()
    job: str | None = None
    queued: Sequence[int] = ()
    queued_jobs: Sequence[str] = ()
    merge: str | None = None

    @property
    def done(self) -> bool:
        """Whether the results of all tasks are put together."""
        return not self.jobs

    @property
    def jobs(self) -> list[str]:
        """Every job that there is of this run now."""
        return [*self.queued_jobs, *([self.job] if self.job else []), *([self.merge] if self.merge else [])]


def submit(submission: Submission, manifest: Manifest, launcher: Launcher) -> Submitted:
    """Submit the tasks that are neither done nor on their way, and the merge after all of them.

    Done again after it was stopped anywhere, or after some tasks failed, it does what is left. Tasks run
    again as well that are done but for failures that may pass.

    Raises
    ------
    ManifestError
        As `ArrayRun.write` and `ArrayRun.states` do.
    SetupError
        The run has results of another stage or of other options, another client submits it right now, or
        SLURM refuses a job. Nothing was submitted.
    LaunchError
        Tasks were submitted, and the merge after them was not.
    SlurmError
        SLURM cannot be asked.
    """
    # What is in the queue has to stay so until this run's jobs are there as well.
    with submission.run.held():
        return _submit(submission, manifest, launcher)


def _submit(submission: Submission, manifest: Manifest, launcher: Launcher) -> Submitted:
    run = submission.run
    jobs = launcher.jobs([submission.job_name, submission.merge_name])
    queued = {_task(job.id): job for job in jobs if job.name == submission.job_name}
    merges = [job for job in jobs if job.name == submission.merge_name and job.state is not JobState.ENDING]
    run.write(manifest)
    run.settle_on(submission.stage, submission.effective, begun=bool(queued))
    states = run.states()
    wanted = [state.task for state in states if state.left_to_run and state.task not in queued]
    if not (wanted or queued or merges) and _is_merged(submission):
        return Submitted(states)
    _write_scripts(submission)
    job = _submit_array(submission, wanted, launcher) if wanted else None
    queued_jobs = sorted({job.id.partition("_")[0] for job in queued.values()}, key=int)
    merge = _merge_after(queued_jobs, merges) if job is None else None
    if merge is None:
        merge = _submit_merge(submission, [*queued_jobs, *([job] if job else [])], launcher, submitted=job)
    # Others would begin too early.
    launcher.cancel([other.id for other in merges if other.id != merge])
    return Submitted(states, wanted, job, sorted(queued), queued_jobs, merge)


def _submit_array(submission: Submission, tasks: Sequence[int], launcher: Launcher) -> str:
    limit = f"%{submission.concurrent}" if submission.concurrent else ""
    return launcher.submit(_array_path(submission.run), arguments=[f"--array={compact_tasks(tasks)}{limit}"])


def _merge_after(arrays: Sequence[str], merges: Sequence[Job]) -> str | None:
    """Find the merge that begins after all of the arrays: one that waits, and is newer than they are."""
    newest = max(merges, key=lambda merge: int(merge.id), default=None)
    if newest is None:
        return None
    waits = newest.state is JobState.PENDING and all(int(array) < int(newest.id) for array in arrays)
    return newest.id if waits or not arrays else None


def _submit_merge(
    submission: Submission, after: Sequence[str], launcher: Launcher, *, submitted: str | None
) -> str:
    arguments = [f"--dependency=afterany:{':'.join(after)}"] if after else []
    try:
        return launcher.submit(_merge_path(submission.run), arguments=arguments)
    except (SubmissionError, SlurmError) as error:
        if submitted is None:
            raise
        raise LaunchError(
            f"the tasks were submitted, as job {submitted}, but not the job that puts their results together:"
            f" {error}\nGive the same command again, now or when they have ended: it submits what is missing"
        ) from error


def _write_scripts(submission: Submission) -> None:
    scripts = {
        _array_path(submission.run): submission.array_script(),
        _merge_path(submission.run): submission.merge_script(),
    }
    try:
        (submission.run.folder / "logs").mkdir(exist_ok=True)
        for path, script in scripts.items():
            with replacing(path) as file:
                file.write(script.encode())
    except OSError as error:
        raise SetupError(f"{submission.run.folder} cannot be written: {error.strerror}") from error


def _is_merged(submission: Submission) -> bool:
    """Tell whether the output is there, no older than any task's results, and after it the table."""
    try:
        merged = submission.output.stat().st_mtime_ns
        if submission.table is not None and submission.table.stat().st_mtime_ns < merged:
            return False
        run = submission.run
        return all(run.result(task).stat().st_mtime_ns <= merged for task in range(run.tasks))
    except FileNotFoundError:
        return False


def _array_path(run: ArrayRun) -> Path:
    return run.folder / "array.slurm"


def _merge_path(run: ArrayRun) -> Path:
    return run.folder / "merge.slurm"


def _task(job: str) -> int:
    return int(job.partition("_")[2])

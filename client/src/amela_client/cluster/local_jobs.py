"""Jobs without SLURM: scripts run by bash on this machine, and found again through their launch's folder."""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from amela_client.atomic_file import replacing
from amela_client.cluster.detached import Detached
from amela_client.cluster.jobs import Job, JobState
from amela_client.errors import LaunchError, SubmissionError

_PREFIX = "amela-"


class LocalLauncher:
    """Runs the scripts of launches as processes of this machine, which live on without this one.

    A job's id is its launch's name and a number: ``asr-3f9a2c-1``. The script finds it in ``AMELA_JOB``,
    writes to ``logs/ID.log`` and leaves its exit code in ``exits/ID``; its process is in ``processes/ID``.

    Parameters
    ----------
    launches
        Folder that holds the folder of each launch.
    """

    name = "local"

    def __init__(self, launches: Path) -> None:
        self._launches = launches

    def submit(self, script: Path, *, arguments: Sequence[str] = ()) -> str:
        """Start a script that lies in its launch's folder; answer the job's id.

        Raises
        ------
        SubmissionError
            There are options for `sbatch`, no bash, or no more room for a process or a file.
        """
        if arguments:
            raise SubmissionError(f"without SLURM there is no {' '.join(arguments)}: take --launcher slurm")
        bash = shutil.which("bash")
        if bash is None:
            raise SubmissionError("bash is not on PATH here: install it")
        folder = script.parent
        # A job of SLURM's around this process is not what the script runs in.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        try:
            (folder / "logs").mkdir(exist_ok=True)
            id_ = _new_id(folder)
            log = folder / "logs" / f"{id_}.log"
            process = Detached.start([bash, str(script)], environment, f"AMELA_JOB={id_}", log)
            try:
                with replacing(folder / "processes" / id_) as file:
                    file.write(json.dumps(asdict(process)).encode())
            except OSError:
                # What has no record would never be ended.
                process.signal(signal.SIGKILL, everyone=True)
                raise
        except OSError as error:
            raise SubmissionError(f"{script} cannot be started here: {error}") from error
        return id_

    def jobs(self, names: Sequence[str]) -> list[Job]:
        """List the jobs of exactly these names of which something lives, oldest first.

        What runs on another machine cannot be seen from here: it is listed until its script has left an exit
        code, with a reason that says so.
        """
        folders = [self._launches / name.removeprefix(_PREFIX) for name in names]
        jobs = [_job(folder, id_, process) for folder in folders for id_, process in _processes(folder)]
        return [job for job in jobs if job.state is not JobState.ENDED]

    def past(self, ids: Sequence[str]) -> dict[str, Job]:
        """Tell how jobs ended, those whose script could say so."""
        jobs = [_job(folder, id_, process) for id_, folder, process in self._find(ids)]
        return {job.id: job for job in jobs if job.state is JobState.ENDED and job.exit_code is not None}

    def cancel(self, ids: Sequence[str]) -> None:
        """Send SIGTERM to the scripts of jobs, which pass it on to their servers.

        Raises
        ------
        LaunchError
            Some run on another machine; the others got it.
        """
        self._signal(ids, signal.SIGTERM)

    def kill(self, ids: Sequence[str]) -> None:
        """Send SIGKILL to all that lives of jobs.

        Raises
        ------
        LaunchError
            Some run on another machine; the others got it.
        """
        self._signal(ids, signal.SIGKILL, everyone=True)

    def _signal(self, ids: Sequence[str], number: signal.Signals, *, everyone: bool = False) -> None:
        elsewhere = []
        for id_, _, process in self._find(ids):
            if process.is_here:
                process.signal(number, everyone=everyone)
            else:
                elsewhere.append(f"{id_} on {process.host}")
        if elsewhere:
            raise LaunchError(f"{', '.join(elsewhere)} can be ended there only: run this command there")

    def _find(self, ids: Sequence[str]) -> Iterator[tuple[str, Path, Detached]]:
        for id_ in ids:
            folder = self._launches / id_.rpartition("-")[0]
            if process := _read(folder / "processes" / id_):
                yield id_, folder, process


def _new_id(folder: Path) -> str:
    processes = folder / "processes"
    processes.mkdir(exist_ok=True)
    number = 1
    while True:
        id_ = f"{folder.name}-{number}"
        try:
            (processes / id_).touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return id_


def _processes(folder: Path) -> list[tuple[str, Detached]]:
    found = [(path.name, _read(path)) for path in (folder / "processes").glob(f"{folder.name}-*")]
    return sorted(((id_, each) for id_, each in found if each), key=lambda found: found[1].started)


def _read(path: Path) -> Detached | None:
    # Empty while the process is being started.
    text = path.read_bytes() if path.exists() else b""
    return Detached(**json.loads(text)) if text else None


def _job(folder: Path, id_: str, process: Detached) -> Job:
    exit_code = _exit_code(folder / "exits" / id_)
    reason = ""
    if process.is_here:
        state = (
            JobState.RUNNING if process.is_alive else JobState.ENDING if process.has_left else JobState.ENDED
        )
    elif exit_code is not None:
        state = JobState.ENDED
    else:
        state = JobState.RUNNING
        reason = f"on {process.host}, where this machine cannot see whether it lives"
    if state is JobState.ENDED and exit_code is not None:
        reason = "FAILED" if exit_code else "COMPLETED"
    return Job(
        id=id_,
        name=f"{_PREFIX}{folder.name}",
        state=state,
        reason=reason,
        node=process.host,
        submitted=process.started,
        started=process.started,
        exit_code=exit_code if state is JobState.ENDED else None,
    )


def _exit_code(path: Path) -> int | None:
    try:
        return int(path.read_text().partition(" ")[0])
    except (FileNotFoundError, ValueError):
        return None

"""The folder of a launch: what was started, its script, its jobs, their logs and how they ended.

``REGISTRY/launches/NAME/`` holds ``launch.json``, ``server.slurm``, ``logs/JOB.log``, and small files of each
job: ``jobs/JOB`` from when it was submitted (with the id of the job that it succeeds, if any),
``jobs/JOB.told`` from when it was told to end, and ``exits/JOB`` from when it ended. The script writes there
too. ``stopped`` says that no job may begin any more.
"""

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from amela_client.atomic_file import replacing
from amela_client.cluster.plan import ServerPlan, gpus_of
from amela_client.errors import LaunchError, SetupError

_FOLDERS = ("logs", "jobs", "exits")


class Exit(NamedTuple):
    """How a job's script ended."""

    code: int
    words: str
    """Why, in the script's words; empty if it drained."""


@dataclass(frozen=True)
class Launch:
    """Servers that were started together, as their folder records it."""

    folder: Path
    stage: str
    launcher: str
    """As ``--launcher`` takes it."""
    host: str
    """Where `up` ran: local jobs are there."""
    count: int
    """Jobs that are wanted."""
    servers_per_job: int
    gpu_memory_mib: int
    """What one server needs; 0 if the catalogue does not say."""
    renew: bool
    created: float
    """Seconds since the epoch."""

    @property
    def name(self) -> str:
        """What users call it."""
        return self.folder.name

    @property
    def job_name(self) -> str:
        """What its jobs are called; no other launch's are."""
        return f"amela-{self.name}"

    @property
    def script(self) -> Path:
        """The batch script of each of its jobs."""
        return self.folder / "server.slurm"

    @property
    def stopped(self) -> bool:
        """Whether it was taken down."""
        return (self.folder / "stopped").exists()

    def log(self, job: str) -> Path:
        """Return where a job's log is."""
        return self.folder / "logs" / f"{job}.log"

    def jobs(self) -> dict[str, str]:
        """Return the ids of its jobs, oldest first, each with the one that it succeeds, or nothing."""
        files = [path for path in self._files("jobs") if not path.suffix]
        return {path.name: _read(path) for path in sorted(files, key=_age)}

    def submitted(self, job: str) -> float | None:
        """Return when a job was submitted, as its record has it."""
        with suppress(OSError):
            return (self.folder / "jobs" / job).stat().st_mtime
        return None

    def told(self) -> set[str]:
        """Return the jobs that were told to end."""
        return {path.stem for path in self._files("jobs") if path.suffix == ".told"}

    def exits(self) -> dict[str, Exit]:
        """Return how its jobs ended, those whose script could say so."""
        found = {}
        for path in self._files("exits"):
            code, _, words = _read(path).partition(" ")
            if code.isdecimal() and not path.name.startswith("."):
                found[path.name] = Exit(int(code), words)
        return found

    def add_job(self, job: str) -> None:
        """Record a job that was submitted."""
        (self.folder / "jobs" / job).touch()

    def tell(self, job: str) -> None:
        """Record that a job is told to end."""
        (self.folder / "jobs" / f"{job}.told").touch()

    def stop(self) -> None:
        """Record that no job may begin any more."""
        (self.folder / "stopped").touch()

    def with_count(self, count: int) -> "Launch":
        """Record how many jobs are wanted from now on."""
        changed = replace(self, count=count)
        changed._write()
        return changed

    def remove(self, *, keep_logs: bool = False) -> None:
        """Remove the folder, or all but the logs."""
        if not keep_logs:
            shutil.rmtree(self.folder)
            return
        for path in self.folder.iterdir():
            if path.name == "logs":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _files(self, folder: str) -> list[Path]:
        try:
            return list((self.folder / folder).iterdir())
        except FileNotFoundError:
            return []

    def _write(self) -> None:
        record = {name: value for name, value in asdict(self).items() if name != "folder"}
        with replacing(self.folder / "launch.json") as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())


@dataclass(frozen=True)
class Record:
    """What a launch's folder says of its jobs."""

    launch: Launch
    jobs: Mapping[str, str] = field(default_factory=dict)
    """Their ids, oldest first, each with the one that it succeeds, or nothing."""
    told: frozenset[str] = frozenset()
    """Jobs that were told to end."""
    exits: Mapping[str, Exit] = field(default_factory=dict)
    stopped: bool = False

    @classmethod
    def read(cls, launch: Launch) -> "Record":
        """Read the folder."""
        return cls(launch, launch.jobs(), frozenset(launch.told()), launch.exits(), launch.stopped)


def new_name(stage: str) -> str:
    """Make a name that no other launch has, such as ``asr-3f9a2c``."""
    return f"{stage}-{secrets.token_hex(3)}"


def create_launch(plan: ServerPlan, script: str, *, launcher: str, count: int) -> Launch:
    """Make the folder of a launch, with its script.

    Raises
    ------
    SetupError
        If it cannot be written.
    """
    launch = Launch(
        folder=plan.folder,
        stage=plan.stage,
        launcher=launcher,
        host=socket.gethostname(),
        count=count,
        servers_per_job=_servers_per_job(plan, launcher),
        gpu_memory_mib=plan.gpu_memory_mib,
        renew=plan.renew,
        created=time.time(),
    )
    try:
        # Names of jobs and what they log are nobody else's business, even in a registry that a group shares.
        plan.folder.parent.mkdir(mode=0o700, exist_ok=True)
        plan.folder.mkdir(mode=0o700)
        for folder in _FOLDERS:
            (plan.folder / folder).mkdir()
        launch.script.write_text(script)
        launch._write()
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(plan.folder)
        raise SetupError(f"the folder {plan.folder} cannot be made: {error.strerror}") from error
    return launch


def open_launch(registry: Path, name: str) -> Launch:
    """Find a launch by its name.

    Raises
    ------
    LaunchError
        If there is none, if its record cannot be read, or if the registry is another user's.
    """
    folder = registry / "launches" / name
    try:
        present = "/" not in name and (folder / "launch.json").exists()
    except PermissionError:
        raise LaunchError(
            f"the registry {registry} belongs to {_owner(registry)}, who alone can see its launches"
        ) from None
    if not present:
        names = ", ".join(path.name for path in _folders(registry)) or "none"
        raise LaunchError(f"no launch is called {name!r} in {registry}; there are: {names}")
    try:
        record = json.loads((folder / "launch.json").read_bytes())
        known = {each.name for each in fields(Launch)}
        return Launch(folder, **{name: value for name, value in record.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LaunchError(
            f"{folder / 'launch.json'} is no launch's record ({error}): end its jobs, if there are any, with"
            f" scancel --name amela-{name}, and remove {folder}"
        ) from error


def all_launches(registry: Path) -> Iterator[Launch | LaunchError]:
    """Find all launches of a registry; what cannot be read comes as the error that says so."""
    for folder in _folders(registry):
        try:
            yield open_launch(registry, folder.name)
        except LaunchError as error:
            yield error


def _servers_per_job(plan: ServerPlan, launcher: str) -> int:
    gpus = gpus_of(plan.gres)
    if launcher == "local" and not gpus:
        gpus = len([gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    return max(1, gpus) * plan.per_gpu


def _folders(registry: Path) -> list[Path]:
    try:
        return sorted(path for path in (registry / "launches").iterdir() if (path / "launch.json").exists())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # None yet, or somebody else's registry, who alone starts servers there.
        return []


def _owner(registry: Path) -> str:
    try:
        return registry.owner()
    except (OSError, KeyError):
        # A folder above it is closed as well, or the user has no name here.
        return "another user"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name

"""A manifest that the tasks of a job array take through a stage: what was shared out, and how far they are.

The run's folder holds ``amela-run.json``, the shares ``STEM_split_00.json``, …, and for each share what its
task writes, under the same name in ``results/``. ``stage.json`` says what the tasks do, from the first on.
"""

import errno
import glob
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from amela_client.atomic_file import replacing, sync_folder, temporary_name
from amela_client.cluster.task_state import TaskState
from amela_client.errors import JournalError, ManifestError, SetupError
from amela_client.journal_file import open_locked
from amela_client.journal_records import RunKey
from amela_client.manifest import Manifest
from amela_client.shares import RECORD, Outline, cause_of, share_names, write_shares

_STAGE = "stage.json"
_LOCK = ".amela-run.lock"
# What file systems answer that have no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
_START_OVER = "to start over, remove {folder}, or choose another folder"


@dataclass(frozen=True)
class ArrayRun:
    """A manifest in shares. What this says of it never changes.

    Attributes
    ----------
    folder
        Of the run.
    manifest, digest
        What was shared out.
    entries
        How many it has.
    tasks
        In how many shares.
    audio_root
        Folder that all recordings lie in.
    """

    folder: Path
    manifest: Path
    digest: str
    entries: int
    tasks: int
    audio_root: str

    @classmethod
    def planned(cls, manifest: Manifest, tasks: int, folder: Path) -> Self:
        """Look how a manifest would be shared out, or has been. Nothing is written.

        Raises
        ------
        ManifestError
            The manifest cannot be shared out to so many tasks, or the folder is another run's, or has shares
            of unknown origin, which may hold results.
        """
        folder = folder.absolute()
        # Before the record, which is always there before a run's shares.
        present = sorted(folder.glob(f"{glob.escape(manifest.path.stem)}_split_*.json"))
        if (folder / RECORD).exists():
            run = cls.open(folder)
            run._refuse_other(manifest, tasks)
            return run
        outline = Outline.of(manifest)
        if not 1 <= tasks <= outline.entries:
            raise ManifestError(
                f"{manifest.path} has {outline.entries} entries, which do not make {tasks} shares"
            )
        if present:
            raise ManifestError(
                f"{folder} has shares already, like {present[0].name}, which may hold results; move them away"
                " or choose another folder"
            )
        return cls(folder, manifest.path, manifest.digest, outline.entries, tasks, outline.audio_root)

    @classmethod
    def split(cls, manifest: Manifest, tasks: int, folder: Path) -> Self:
        """Share out a manifest, or go on with that after it was stopped.

        Raises
        ------
        ManifestError, SetupError
            As `planned`, `held` and `write` do.
        """
        run = cls.planned(manifest, tasks, folder)
        with run.held():
            run.write(manifest)
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other client from sharing out or submitting this run until the block ends.

        Where the file system has no locks, they are not kept from it.

        Raises
        ------
        SetupError
            Another client does that now.
        ManifestError
            The folder cannot be written.
        """
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            descriptor, _ = open_locked(self.folder / _LOCK)
        except JournalError:
            raise SetupError(
                f"{self.folder} is being split or submitted by another client right now: give the command"
                " again when that has ended"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def write(self, manifest: Manifest) -> None:
        """Write what is missing of the record and of the shares.

        Raises
        ------
        ManifestError
            The folder cannot be written, or another client has made another run of it since this was planned.
        """
        record = {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()
        }
        del record["folder"]
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            # First of all: without it, shares may be of any manifest.
            made = _make(self.folder / RECORD, record)
        except OSError as error:
            raise self._unwritable(error) from None
        if not made:
            self.open(self.folder)._refuse_other(manifest, self.tasks)
        missing = {task: share for task in range(self.tasks) if not (share := self.share(task)).exists()}
        if missing:
            write_shares(manifest, self.entries, self.tasks, missing)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Find the run of a folder.

        Raises
        ------
        ManifestError
            There is none.
        """
        record = folder.absolute() / RECORD
        try:
            content = json.loads(record.read_bytes())
            return cls(folder.absolute(), Path(content.pop("manifest")), **content)
        except FileNotFoundError:
            raise ManifestError(
                f"{folder} is no run of a job array, it has no {RECORD}: `amela-client manifest split"
                f" MANIFEST --splits N -o {folder}` makes one of a manifest"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"{record} cannot be read as the record of a run: {error}") from None

    @property
    def results(self) -> Path:
        """Folder of what the tasks write."""
        return self.folder / "results"

    def share(self, task: int) -> Path:
        """Return what a task works on."""
        return self.folder / share_names(self.manifest.stem, self.tasks)[task]

    def result(self, task: int) -> Path:
        """Return where the results of a task go."""
        return self.results / self.share(task).name

    def states(self) -> list[TaskState]:
        """Look how far each task is.

        Raises
        ------
        ManifestError
            A file cannot be read.
        """
        return [self.state(task) for task in range(self.tasks)]

    def state(self, task: int) -> TaskState:
        """Look how far a task is; raises as `states` does."""
        try:
            return TaskState.of(task, len(range(task, self.entries, self.tasks)), self.result(task))
        except OSError as error:
            raise ManifestError(f"{error.filename} cannot be read: {error.strerror}") from None

    def settle_on(self, stage: str, options: Mapping[str, object], *, begun: bool = False) -> None:
        """Record what the tasks do, or see that it is what they have done so far.

        Parameters
        ----------
        options
            Everything that changes results, as JSON values.
        begun
            Whether tasks may be at work that have left nothing yet.

        Raises
        ------
        SetupError
            The run has begun with another stage or with other options.
        """
        path = self.folder / _STAGE
        now = RunKey(self.digest, stage, dict(options))
        if path.exists() and (begun or self._has_results()):
            before = RunKey(self.digest, **json.loads(path.read_bytes()))
            if differences := before.differences(now):
                raise SetupError(
                    f"{self.folder} has begun already, and {'; '.join(differences)}. To go on, give what was"
                    f" given before; {_START_OVER.format(folder=self.folder)}"
                )
        else:
            _write(path, {"stage": stage, "options": dict(options)})

    def _refuse_other(self, manifest: Manifest, tasks: int) -> None:
        differences = []
        if manifest.path != self.manifest:
            differences.append(f"it was made of {self.manifest}, not of {manifest.path}")
        elif manifest.digest != self.digest:
            differences.append(f"{manifest.path} has changed since")
        if tasks != self.tasks:
            differences.append(f"it has {self.tasks} tasks, not {tasks}")
        if differences:
            raise ManifestError(
                f"{self.folder} is a run already: {'; '.join(differences)}. To go on with it, give what it"
                f" was made with; {_START_OVER.format(folder=self.folder)}"
            )

    def _unwritable(self, error: OSError) -> ManifestError:
        return ManifestError(f"{self.folder} cannot be made a run's folder: {cause_of(error)}")

    def _has_results(self) -> bool:
        return any(not path.name.startswith(".") for path in self.results.iterdir())


def whole_manifest(path: Path) -> Path:
    """Return the manifest that a share was made of; any other file is a manifest itself.

    Raises
    ------
    ManifestError
        The manifest has changed since it was shared out, or has vanished.
    """
    if not (path.absolute().parent / RECORD).exists():
        return path
    run = ArrayRun.open(path.parent)
    if path.name not in share_names(run.manifest.stem, run.tasks):
        return path
    if Manifest(run.manifest).digest != run.digest:
        raise ManifestError(f"{run.manifest} has changed since {path} was made of it; put it back as it was")
    return run.manifest


def _make(path: Path, content: Mapping[str, Any]) -> bool:
    """Write a file if there is none; of several clients that do so at once, one succeeds."""
    if path.exists():
        return False
    aside = path.with_name(temporary_name(path.name))
    try:
        _write(aside, content)
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(f"{json.dumps(content, indent=2)}\n".encode())

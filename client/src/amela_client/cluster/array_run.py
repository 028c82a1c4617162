"""A manifest that the tasks of a job array take through a stage: what was shared out, and how far they are.

The run's folder holds ``amela-run.json``, the shares ``STEM_split_00.json``, …, and for each share what its
task writes, under the same name in ``results/``. ``stage.json`` says what the tasks do, from the first on.
"""

import glob
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from amela_client.atomic_file import replacing
from amela_client.cluster.task_state import TaskState
from amela_client.errors import ManifestError, SetupError
from amela_client.journal_records import RunKey
from amela_client.manifest import Manifest
from amela_client.shares import RECORD, Outline, cause_of, share_names, write_shares

_STAGE = "stage.json"
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
        if (folder / RECORD).exists():
            run = cls.open(folder)
            run._refuse_other(manifest, tasks)
            return run
        outline = Outline.of(manifest)
        if not 1 <= tasks <= outline.entries:
            raise ManifestError(
                f"{manifest.path} has {outline.entries} entries, which do not make {tasks} shares"
            )
        if present := sorted(folder.glob(f"{glob.escape(manifest.path.stem)}_split_*.json")):
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
        ManifestError
            As `planned` and `write` do.
        """
        run = cls.planned(manifest, tasks, folder)
        run.write(manifest)
        return run

    def write(self, manifest: Manifest) -> None:
        """Write what is missing of the record and of the shares.

        Raises
        ------
        ManifestError
            The folder cannot be written.
        """
        record = {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()
        }
        del record["folder"]
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            # First of all: without it, shares may be of any manifest.
            if not (self.folder / RECORD).exists():
                _write(self.folder / RECORD, record)
        except OSError as error:
            raise ManifestError(f"{self.folder} cannot be made a run's folder: {cause_of(error)}") from None
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


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(f"{json.dumps(content, indent=2)}\n".encode())

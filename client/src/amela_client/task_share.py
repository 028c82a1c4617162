"""The entries that one task of a job array works on, straight from the whole manifest."""

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from amela_client.errors import ManifestError, MergeError
from amela_client.jsonline import with_fields
from amela_client.manifest import Entry, Fault, Manifest
from amela_client.share_mark import FIELD, Mark


class Share(NamedTuple):
    """One task's share of a manifest: the entries whose index is `task` modulo `tasks`."""

    task: int
    tasks: int

    def of(self, output: Path) -> Path:
        """Return where this task's results go: ``done_task_03_of_16.json`` for ``done.json``.

        Raises
        ------
        MergeError
            There are results of another number of tasks.
        """
        for other in output.parent.glob(
            f"{glob.escape(output.stem)}_task_*_of_*{glob.escape(output.suffix)}"
        ):
            match = re.search(r"_task_\d+_of_(\d+)$", other.stem)
            if match and int(match[1]) != self.tasks:
                raise MergeError(
                    f"{other} is of a run with {int(match[1])} tasks, not {self.tasks}: give that number"
                    " again, or move those files away"
                )
        width = max(2, len(str(self.tasks - 1)))
        return output.with_name(f"{output.stem}_task_{self.task:0{width}}_of_{self.tasks}{output.suffix}")


class ManifestShare(Manifest):
    """A share of a manifest, every line of it marked as `amela_client.shares.split` does.

    `merge_shares` so puts the results of all tasks together. Shares may have no entry.
    """

    def __init__(self, path: str | os.PathLike[str], share: Share, *, strict: bool = False) -> None:
        super().__init__(path, strict=strict)
        self.share = share
        self._total: int | None = None

    @property
    def digest(self) -> str:
        """Digest of the whole manifest, and which share of it this is."""
        return f"{super().digest}, task {self.share.task} of {self.share.tasks}"

    def __iter__(self) -> Iterator[Entry | Fault]:
        if self._total is None:
            self._total = sum(1 for _ in super().__iter__())
        task, tasks = self.share
        for item in super().__iter__():
            if item.index % tasks == task:
                yield self._marked(item) if isinstance(item, Entry) else item

    def mark(self, item: Entry | Fault) -> Mapping[str, object]:
        """Return the field that says where an entry belongs in the whole manifest."""
        assert self._total is not None
        return Mark(item.index, self._total, item.line).fields

    def _marked(self, entry: Entry) -> Entry:
        if FIELD in entry.fields:
            raise ManifestError(
                f"{self.path}, line {entry.line} is a share's already (it has {FIELD}): leave out --tasks, or"
                " give the manifest that was split"
            )
        return replace(entry, raw=with_fields(entry.raw, self.mark(entry)))

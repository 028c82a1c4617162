"""A whole manifest through one stage: what is left to do, the calls, the journal, the merge."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amela_client.backlog import Outcome, Task
from amela_client.client import AmelaClient
from amela_client.entries import EntryProblem
from amela_client.errors import JournalError, MixedModelsError
from amela_client.journal import Journal, RunKey
from amela_client.manifest import Entry, Manifest
from amela_client.merge import MergeReport, check_output, merge_results
from amela_client.product import Product
from amela_client.progress import Tally
from amela_client.results import Model
from amela_client.stages import Stage

log = logging.getLogger(__name__)

# Between two such slices of a manifest the event loop sees to signals and to the display.
_SLICE_ENTRIES = 500
# Files that are written at the same time; each waits for its disk.
_WRITERS = 8
# What every entry would be refused for.
_ABOUT_THE_RUN = frozenset({"UNSUPPORTED_OPTION", "UNIMPLEMENTED"})


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes
    ----------
    results
        Entries with a result, those of earlier runs that this one continued included.
    resumed
        How many of the entries with a record those earlier runs had settled.
    skipped
        Entries that had their result before.
    quarantined
        Lines without a result, by reason.
    passing
        How many of those another run may mend: it is enough to give the command again.
    gaps
        Results of which a piece is missing.
    audio_seconds, elapsed
        Audio done by this run, and how long the calls took, in seconds.
    models
        Models that it used.
    output, errors
        The files written; no `errors` where nothing is quarantined.
    """

    results: int
    resumed: int
    skipped: int
    quarantined: dict[str, int]
    passing: int
    gaps: int
    audio_seconds: float
    elapsed: float
    models: tuple[Model, ...]
    output: Path
    errors: Path | None


def journal_path(output: Path) -> Path:
    """Return where the journal of a run lies: ``data.json.journal`` beside ``data.json``."""
    return output.with_name(f"{output.name}.journal")


async def run_manifest(
    client: AmelaClient,
    stage: Stage,
    manifest: Manifest,
    output: Path,
    *,
    in_place: bool = False,
    restart: bool = False,
    mix_models: bool = False,
    tally: Tally | None = None,
) -> RunSummary:
    """Take every entry of a manifest through a stage, and write the results in the manifest's order.

    ::

        async with AmelaClient() as client:
            stage = Transcription(words=True)
            await run_manifest(client, stage, Manifest("data.json"), Path("data.transcribed.json"))

    A run that was stopped, by cancelling it or in any other way, goes on from its journal when it is started
    again with the same arguments. Where nothing is left to do, no server is needed.

    Parameters
    ----------
    in_place
        Whether `output` is the manifest itself.
    restart
        Whether to drop what the journal has, and start over.
    mix_models
        Whether results of different models may come together, those in the journal included. `client` needs
        the same.
    tally
        Kept up to date, for a display.

    Raises
    ------
    ManifestError, JournalError, MergeError, OutputError
        A file cannot be used; the last three also where the disk is full. The journal keeps what is done.
    NoServersError, DiscoveryError, MixedModelsError
        There is no server to call (any more), or servers or an earlier part of the run have other models.
    CallError
        All servers refuse this client, or what `stage` asks for.
    """
    output = check_output(manifest, output, in_place=in_place, stage=stage.name)
    key = RunKey(manifest.digest, stage.name, stage.options, str(manifest.path.parent))
    journal = Journal.open(journal_path(output), key, restart=restart)
    run = _Run(client, stage, manifest, journal, tally or Tally(), mix_models=mix_models)
    finished = False
    try:
        await run.look_through()
        if run.tally.entries:
            await run.check_models()
            await run.make_calls()
        run.tally.phase = "writing the results"
        report = merge_results(manifest, journal, output, in_place=in_place, present=stage.present)
        # In place, the manifest itself says what is left to do.
        finished = in_place or not run.passing
    finally:
        if finished or not len(journal):
            journal.discard()
        else:
            journal.close()
    return run.summary(report)


class _Run:
    def __init__(
        self,
        client: AmelaClient,
        stage: Stage,
        manifest: Manifest,
        journal: Journal,
        tally: Tally,
        *,
        mix_models: bool,
    ) -> None:
        self.tally = tally
        self.passing = 0
        self._client = client
        self._stage = stage
        self._manifest = manifest
        self._journal = journal
        self._mix_models = mix_models
        self._gaps = 0
        self._elapsed = 0.0
        self._models: tuple[Model, ...] = ()
        self._recorded_model: Model | None = None
        self._room = asyncio.Semaphore(_WRITERS)
        # What servers or the scheduler's look-ahead have now: bounded, however long the manifest is.
        self._under_way: dict[int, Entry] = {}
        tally.count_servers = lambda: client.serving(stage.service)

    async def look_through(self) -> None:
        """Count what is left to do."""
        tally, journal, manifest = self.tally, self._journal, self._manifest
        for warning in journal.warnings:
            log.warning("%s", warning)
        tally.phase = "reading the manifest"
        for count, item in enumerate(manifest):
            if count % _SLICE_ENTRIES == 0:
                await asyncio.sleep(0)
            if not isinstance(item, Entry):
                continue
            if item.relative and journal.moved_from:
                raise JournalError(
                    f"{journal.path} belongs to a run of the manifest in {journal.moved_from}, and this one"
                    f" is in {manifest.path.parent}: relative paths, like that on line {item.line}, lead to"
                    " other recordings there. Choose another output, or start over (--restart)"
                )
            if item.index in journal:
                if self._recorded_model is None:
                    self._note_recorded_model(item.index)
            elif self._stage.present(item) is None:
                tally.add(item.duration)
        for warning in manifest.warnings:
            log.warning("%s", warning)

    def _note_recorded_model(self, index: int) -> None:
        outcome = self._journal.read(index)
        model = outcome.get(self._stage.model_field) if isinstance(outcome, dict) else None
        match model:
            case {"engine": str(engine), "name": str(name), "fingerprint": str(fingerprint)}:
                self._recorded_model = Model(engine, name, fingerprint, device="", warnings=())

    async def check_models(self) -> None:
        """Wait for a server, and see that its results go with those in the journal."""
        self.tally.phase = "looking for servers"
        self._models = tuple(await self._client.models(self._stage.service))
        before = self._recorded_model
        others = [model for model in self._models if before and model.fingerprint != before.fingerprint]
        if before and others and not self._mix_models:
            raise MixedModelsError(
                f"{self._journal.path} has results of {_named(before)}, and servers now run"
                f" {' and '.join(map(_named, others))}: start servers with the model of before, start over"
                " with --restart, or mix them with --mix-models"
            )
        for warning in dict.fromkeys(warning for model in self._models for warning in model.warnings):
            log.warning("%s", warning)

    async def make_calls(self) -> None:
        """Make every call that is left, and record what becomes of it."""
        self.tally.phase = ""
        self.tally.started = time.monotonic()
        try:
            async with (
                aclosing(self._stage.run(self._client, self._tasks())) as outcomes,
                asyncio.TaskGroup() as writers,
            ):
                async for outcome in outcomes:
                    entry = self._under_way.pop(outcome.key)
                    if self._stage.product is None or outcome.error:
                        self._settle(outcome, entry)
                    else:
                        await self._room.acquire()
                        writers.create_task(self._keep(self._stage.product, outcome, entry))
        except ExceptionGroup as group:
            # Whatever came first; the others follow from it.
            raise group.exceptions[0] from None
        self._elapsed = self.tally.elapsed

    async def _keep(self, product: Product, outcome: Outcome[Any], entry: Entry) -> None:
        try:
            await asyncio.to_thread(product.keep, entry, outcome.response)
            self._settle(outcome, entry)
        finally:
            self._room.release()

    def _tasks(self) -> Iterator[Task | None]:
        for item in self._manifest:
            yield self._task(item) if isinstance(item, Entry) and item.index not in self._journal else None

    def _task(self, entry: Entry) -> Task | None:
        if self._stage.present(entry) is not None:
            return None
        try:
            request = self._stage.request(entry)
        except EntryProblem as problem:
            self._journal.record_failure(entry.index, problem.reason, problem.message, transient=False)
            self.tally.settle(entry.duration, None)
            return None
        self._under_way[entry.index] = entry
        return Task(entry.index, request, entry.duration or 0.0)

    def _settle(self, outcome: Outcome[Any], entry: Entry) -> None:
        error, result = outcome.error, outcome.response
        if error is None:
            assert result is not None
            fields = self._stage.fields(entry, result)
            if self._stage.product:
                fields = self._stage.product.fields(entry) | fields
            self._journal.record(entry.index, fields)
            self._gaps += "text_gaps" in fields
            self.tally.settle(entry.duration, result.audio_seconds)
        elif error.reason in _ABOUT_THE_RUN:
            raise error
        else:
            tries = f" (after {outcome.tries} tries)" if outcome.tries > 1 else ""
            self._journal.record_failure(
                entry.index, error.reason, error.message + tries, transient=error.transient
            )
            self.passing += error.transient
            self.tally.settle(entry.duration, None)

    def summary(self, report: MergeReport) -> RunSummary:
        """Say what the run came to."""
        reasons: Counter[str] = Counter()
        if report.errors is not None:
            with report.errors.open("rb") as lines:
                reasons.update(json.loads(line)["reason"] for line in lines)
        return RunSummary(
            results=report.results,
            resumed=self._journal.resumed,
            skipped=report.skipped,
            quarantined=dict(reasons.most_common()),
            passing=self.passing,
            gaps=self._gaps,
            audio_seconds=self.tally.done_seconds,
            elapsed=self._elapsed,
            models=self._models,
            output=report.output,
            errors=report.errors,
        )


def _named(model: Model) -> str:
    return f"{model.engine} {model.name} (fingerprint {model.fingerprint})"

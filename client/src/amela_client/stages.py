"""What can be done with each entry of a manifest: the call it takes, and the fields its line gains."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from google.protobuf.message import Message

from amela_client.backlog import Outcome, Task
from amela_client.client import AmelaClient
from amela_client.manifest import Entry
from amela_client.product import Product
from amela_client.requests import detect_request, transcribe_request
from amela_client.results import Model, Transcript, TranscriptSegment, VoiceActivity, Word
from amela_client.services import ASR, VAD, Service
from amela_client.vad_report import manifest_fields, rounded


class Stage(Protocol):
    """Something that AMELA's services do with each entry of a manifest."""

    @property
    def name(self) -> str:
        """What the command is called."""
        ...

    @property
    def service(self) -> Service:
        """The service that does it."""
        ...

    @property
    def model_field(self) -> str:
        """Field of a line that says which model made its result."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """Every option that changes results, as JSON values."""
        ...

    @property
    def product(self) -> Product | None:
        """The files that results become, if lines do not hold them whole."""
        ...

    def present(self, entry: Entry) -> Mapping[str, object] | None:
        """Return what the line of an entry gains that has its result already; None if it has none."""
        ...

    def request(self, entry: Entry) -> Message:
        """Make the call's request.

        Raises
        ------
        EntryProblem
            The entry lacks what this stage needs of it.
        """
        ...

    def run(self, client: AmelaClient, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[Any], None]:
        """Make the calls."""
        ...

    def fields(self, entry: Entry, result: Any) -> dict[str, object]:
        """Return the fields that the entry's line gains, besides the product's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Transcription:
    """Gives each entry its ``text``.

    Parameters
    ----------
    words, segments
        Whether lines also get ``words`` and ``text_segments``, with times in seconds from the start of the
        entry's stretch.
    confidence
        Whether these come with confidences, 0 to 1.
    channel
        Channel to listen to, from 0. Default: the mean of all.
    language, prompt, max_new_tokens
        As for `transcribe_request`.
    force
        Whether entries that have a text get a new one.
    """

    words: bool = False
    segments: bool = False
    confidence: bool = False
    language: str = ""
    prompt: str = ""
    max_new_tokens: int = 0
    channel: int | None = None
    force: bool = False

    name: ClassVar[str] = "transcribe"
    service: ClassVar[Service] = ASR
    model_field: ClassVar[str] = "asr_model"
    product: ClassVar[None] = None

    @property
    def options(self) -> dict[str, object]:
        """Every option that changes results: `force` only says for which entries there are any."""
        return {name: value for name, value in asdict(self).items() if name != "force"}

    def present(self, entry: Entry) -> Mapping[str, object] | None:
        """Return nothing to add if the entry has a text; an empty one is a place to fill in."""
        return None if self.force or entry.fields.get("text") in (None, "") else {}

    def request(self, entry: Entry) -> Message:
        """Make the call's request."""
        return transcribe_request(
            entry.audio_filepath,
            **stretch_of(entry),
            channel=self.channel,
            words=self.words,
            confidence=self.confidence,
            language=self.language,
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
        )

    def run(
        self, client: AmelaClient, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[Transcript], None]:
        """Make the calls."""
        return client.transcribe_all(tasks)

    def fields(self, entry: Entry, result: Transcript) -> dict[str, object]:
        """Return ``text``, the model, and what was asked for; ``text_gaps`` if pieces failed."""
        fields: dict[str, object] = {"text": result.text}
        if self.words:
            fields["words"] = list(map(_timed, result.words))
        if self.segments:
            fields["text_segments"] = list(map(_timed, result.segments))
        if result.failures:
            fields["text_gaps"] = [
                {**failure._asdict(), "start": rounded(failure.start), "end": rounded(failure.end)}
                for failure in result.failures
            ]
        return fields | {self.model_field: named_model(result.model)}


@dataclass(frozen=True, kw_only=True)
class VoiceDetection:
    """Finds the speech in each entry.

    Parameters
    ----------
    threshold, merge_gap, min_speech, padding
        As for `segmentation_options`.
    channel
        As for `Transcription`.
    """

    threshold: float | None = None
    merge_gap: float | None = None
    min_speech: float | None = None
    padding: float | None = None
    channel: int | None = None

    name: ClassVar[str] = "vad"
    service: ClassVar[Service] = VAD
    model_field: ClassVar[str] = "vad_model"
    product: ClassVar[None] = None

    @property
    def options(self) -> dict[str, object]:
        """Every option that changes results."""
        return asdict(self)

    def present(self, entry: Entry) -> None:
        """Nothing is: segments in a manifest may be anyone's."""

    def request(self, entry: Entry) -> Message:
        """Make the call's request."""
        return detect_request(entry.audio_filepath, **stretch_of(entry), **asdict(self))

    def run(
        self, client: AmelaClient, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[VoiceActivity], None]:
        """Make the calls."""
        return client.detect_all(tasks)

    def fields(self, entry: Entry, result: VoiceActivity) -> dict[str, object]:
        """Return `vad_report.manifest_fields`, and what makes the line work in a manifest anywhere.

        That is an absolute path, and a duration where the manifest had none.
        """
        fields: dict[str, object] = {}
        if entry.relative:
            fields["audio_filepath"] = entry.audio_filepath
        if entry.duration is None:
            fields["duration"] = rounded(result.audio_seconds)
        return fields | manifest_fields(result) | {self.model_field: named_model(result.model)}


def stretch_of(entry: Entry) -> dict[str, Any]:
    """Return the arguments of a request that say which stretch is meant."""
    # A duration without an offset only says how long the recording is.
    return {} if entry.offset is None else {"start": entry.offset, "duration": entry.duration}


def named_model(model: Model) -> dict[str, str]:
    """Return what a line says of the model that made its result."""
    return {"engine": model.engine, "name": model.name, "fingerprint": model.fingerprint}


def _timed(item: Word | TranscriptSegment) -> dict[str, object]:
    timed: dict[str, object] = {"text": item.text, "start": rounded(item.start), "end": rounded(item.end)}
    return timed if item.confidence is None else timed | {"confidence": round(item.confidence, 4)}

"""Speech to units and back for each entry of a manifest."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from amela_client.backlog import Outcome, Task
from amela_client.client import AmelaClient
from amela_client.entries import EntryProblem, FaultReason
from amela_client.manifest import Entry
from amela_client.mirror import Mirror
from amela_client.product import Product
from amela_client.requests import VoicePart, encode_request, resynthesize_request, synthesize_request
from amela_client.services import STS, Service
from amela_client.stages import named_model, stretch_of
from amela_client.synthesized import SynthesizedAudio
from amela_client.units import Units
from amela_client.vad_report import rounded

_MODEL_FIELD = "sts_model"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Gives each entry its ``units``.

    Parameters
    ----------
    deduplicate
        Whether to keep one unit for each run of equal ones.
    npz
        Where the units of each entry go as a file of their own as well.
    channel
        Channel to listen to, from 0. Default: the mean of all.
    """

    deduplicate: bool = False
    npz: Mirror | None = None
    channel: int | None = None

    name: ClassVar[str] = "encode"
    service: ClassVar[Service] = STS
    model_field: ClassVar[str] = _MODEL_FIELD

    @property
    def product(self) -> Product | None:
        """The npz files, if there are to be any."""
        return Product("units_filepath", self.npz, Units.write_npz) if self.npz else None

    @property
    def options(self) -> dict[str, object]:
        """Every option that changes results."""
        npz = str(self.npz.folder) if self.npz else None
        return {"deduplicate": self.deduplicate, "npz": npz, "channel": self.channel}

    def present(self, entry: Entry) -> None:
        """Nothing is: units in a manifest may be another model's."""

    def request(self, entry: Entry) -> Message:
        """Make the call's request."""
        return encode_request(
            entry.audio_filepath, **stretch_of(entry), channel=self.channel, deduplicate=self.deduplicate
        )

    def run(self, client: AmelaClient, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[Units], None]:
        """Make the calls."""
        return client.encode_all(tasks)

    def fields(self, entry: Entry, result: Units) -> dict[str, object]:
        """Return ``units``, ``durations`` and the model."""
        return {
            "units": result.units.tolist(),
            "durations": result.durations.tolist(),
            self.model_field: named_model(result.model),
        }


@dataclass(frozen=True, kw_only=True)
class Resynthesis:
    """Makes of each entry's recording a WAV file that says the same in another voice.

    Parameters
    ----------
    mirror
        Where the files go.
    speaker, style
        By name or by index. Default: the first.
    channel
        As for `Encoding`.
    force
        Whether files that are there are made again.
    """

    mirror: Mirror
    speaker: VoicePart = None
    style: VoicePart = None
    channel: int | None = None
    force: bool = False

    name: ClassVar[str] = "resynthesize"
    service: ClassVar[Service] = STS
    model_field: ClassVar[str] = _MODEL_FIELD

    @property
    def product(self) -> Product:
        """The WAV files."""
        return _wav_files(self.mirror)

    @property
    def options(self) -> dict[str, object]:
        """Every option that changes results."""
        return {"speaker": self.speaker, "style": self.style, "channel": self.channel}

    def present(self, entry: Entry) -> Mapping[str, object] | None:
        """Return the file's name if the file is there."""
        return None if self.force or not self.product.exists(entry) else self.product.fields(entry)

    def request(self, entry: Entry) -> Message:
        """Make the call's request."""
        return resynthesize_request(
            entry.audio_filepath,
            **stretch_of(entry),
            channel=self.channel,
            speaker=self.speaker,
            style=self.style,
        )

    def run(
        self, client: AmelaClient, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[SynthesizedAudio], None]:
        """Make the calls."""
        return client.resynthesize_all(tasks)

    def fields(self, entry: Entry, result: SynthesizedAudio) -> dict[str, object]:
        """Return the file's length and the model."""
        return _audio_fields(result)


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Makes a WAV file of each entry's ``units`` and ``durations``.

    Parameters
    ----------
    mirror, speaker, style, force
        As for `Resynthesis`.
    predict_durations
        Whether the vocoder says how long units last, whatever the entries say.
    """

    mirror: Mirror
    speaker: VoicePart = None
    style: VoicePart = None
    predict_durations: bool = False
    force: bool = False

    name: ClassVar[str] = "synthesize"
    service: ClassVar[Service] = STS
    model_field: ClassVar[str] = _MODEL_FIELD

    @property
    def product(self) -> Product:
        """The WAV files."""
        return _wav_files(self.mirror)

    @property
    def options(self) -> dict[str, object]:
        """Every option that changes results."""
        return {"speaker": self.speaker, "style": self.style, "predict_durations": self.predict_durations}

    def present(self, entry: Entry) -> Mapping[str, object] | None:
        """Return the file's name if the file is there."""
        return None if self.force or not self.product.exists(entry) else self.product.fields(entry)

    def request(self, entry: Entry) -> Message:
        """Make the call's request; raises `EntryProblem` if the entry's units are none."""
        durations = None if self.predict_durations else entry.fields.get("durations")
        return synthesize_request(
            _integers(entry.fields.get("units"), "units"),
            durations=None if durations is None else _integers(durations, "durations"),
            predict_durations=self.predict_durations,
            speaker=self.speaker,
            style=self.style,
        )

    def run(
        self, client: AmelaClient, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[SynthesizedAudio], None]:
        """Make the calls."""
        return client.synthesize_all(tasks)

    def fields(self, entry: Entry, result: SynthesizedAudio) -> dict[str, object]:
        """Return the file's length and the model."""
        return _audio_fields(result)


def _wav_files(mirror: Mirror) -> Product:
    return Product("synthesized_filepath", mirror, SynthesizedAudio.write_wav)


def _audio_fields(result: SynthesizedAudio) -> dict[str, object]:
    return {
        "synthesized_duration": rounded(result.audio_seconds),
        _MODEL_FIELD: named_model(result.model),
    }


def _integers(value: Any, name: str) -> list[int]:
    if not isinstance(value, list):
        given = "there are none" if value is None else f"{name} is {value!r:.60}"
        raise EntryProblem(FaultReason.BAD_UNITS, f"{name}: {given}; a list of whole numbers is needed")
    for place, item in enumerate(value):
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 32:
            raise EntryProblem(
                FaultReason.BAD_UNITS, f"{name}[{place}] is {item!r:.60}; a whole number from 0 on is needed"
            )
    return value

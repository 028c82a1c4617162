"""What calls answer, as plain values. All times are seconds from the start of the audio asked for."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from amela.asr.v1 import asr_pb2
from amela.common.v1 import server_pb2
from amela.vad.v1 import vad_pb2
from google.protobuf.duration_pb2 import Duration


class Model(NamedTuple):
    """What computed a result. Equal fingerprints give equal results."""

    engine: str
    name: str
    fingerprint: str
    device: str
    warnings: tuple[str, ...]

    @classmethod
    def from_proto(cls, model: server_pb2.Model) -> Self:
        """Read the contract's message."""
        return cls(model.engine, model.name, model.fingerprint, model.device, tuple(model.warnings))


class TranscriptSegment(NamedTuple):
    """One piece that the engine saw. `confidence` (0 to 1) only when asked for."""

    text: str
    start: float
    end: float
    confidence: float | None


class Word(NamedTuple):
    """One word. `confidence` (0 to 1) only when asked for."""

    text: str
    start: float
    end: float
    confidence: float | None


class PieceFailure(NamedTuple):
    """A piece without text, while others have theirs. `reason` as in `CallError`."""

    start: float
    end: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in one recording."""

    text: str
    """The whole text, pieces joined by single spaces."""
    segments: tuple[TranscriptSegment, ...]
    words: tuple[Word, ...]
    """Only when asked for."""
    audio_seconds: float
    """How much audio was looked at."""
    speech_seconds: float
    no_speech: bool
    """No speech was found, so the engine was not asked."""
    failures: tuple[PieceFailure, ...]
    """Empty if all went well."""
    model: Model

    @classmethod
    def from_proto(cls, response: asr_pb2.TranscribeResponse) -> Self:
        """Read the contract's message."""
        return cls(
            text=response.text,
            segments=tuple(TranscriptSegment(*_timed_text(item)) for item in response.segments),
            words=tuple(Word(*_timed_text(item)) for item in response.words),
            audio_seconds=seconds_of(response.audio_duration),
            speech_seconds=seconds_of(response.speech_duration),
            no_speech=response.no_speech,
            failures=tuple(
                PieceFailure(seconds_of(item.start), seconds_of(item.end), item.reason, item.message)
                for item in response.failures
            ),
            model=Model.from_proto(response.model),
        )


class SpeechSegment(NamedTuple):
    """A stretch of speech."""

    start: float
    end: float


class SpeechStatistics(NamedTuple):
    """Lengths of the runs of speech and of non-speech, in seconds; 0 where there are none."""

    max_speech: float
    min_speech: float
    mean_speech: float
    max_nonspeech: float
    min_nonspeech: float
    mean_nonspeech: float
    speech_ratio: float
    """Speech time by whole time, 0 to 1."""


class FrameProbabilities(NamedTuple):
    """Speech probability (0 to 1) of each frame, `hop` seconds apart."""

    hop: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VoiceActivity:
    """Where one recording has speech."""

    segments: tuple[SpeechSegment, ...]
    statistics: SpeechStatistics
    audio_seconds: float
    """How much audio was looked at."""
    no_speech: bool
    """Speech ratio below 0.01, or no run of speech of 0.3 s."""
    long_audio: bool
    """60 s or longer."""
    split_points: tuple[float, ...]
    """Where to cut long audio: pauses near each 30 s mark. Empty below 60 s."""
    frame_probabilities: FrameProbabilities | None
    """Only when asked for."""
    model: Model

    @classmethod
    def from_proto(cls, response: vad_pb2.DetectResponse) -> Self:
        """Read the contract's message."""
        statistics = response.statistics
        frames = response.frame_probabilities
        return cls(
            segments=tuple(
                SpeechSegment(seconds_of(item.start), seconds_of(item.end)) for item in response.segments
            ),
            statistics=SpeechStatistics(
                seconds_of(statistics.max_speech),
                seconds_of(statistics.min_speech),
                seconds_of(statistics.mean_speech),
                seconds_of(statistics.max_nonspeech),
                seconds_of(statistics.min_nonspeech),
                seconds_of(statistics.mean_nonspeech),
                statistics.speech_ratio,
            ),
            audio_seconds=seconds_of(response.audio_duration),
            no_speech=response.no_speech,
            long_audio=response.long_audio,
            split_points=tuple(map(seconds_of, response.split_points)),
            frame_probabilities=FrameProbabilities(seconds_of(frames.hop), tuple(frames.values))
            if response.HasField("frame_probabilities")
            else None,
            model=Model.from_proto(response.model),
        )


class SpeechEvent(NamedTuple):
    """Speech began or ended in live audio."""

    kind: Literal["start", "end"]
    time: float
    position: float
    """How much of the stream had been looked at by then."""

    @classmethod
    def from_proto(cls, response: vad_pb2.DetectStreamResponse) -> "SpeechEvent | None":
        """Read the contract's message; None for a kind of event that this client does not know."""
        position = seconds_of(response.position)
        match response.WhichOneof("event"):
            case "speech_start":
                return cls("start", seconds_of(response.speech_start), position)
            case "speech_end":
                return cls("end", seconds_of(response.speech_end), position)
        return None


class Gpu(NamedTuple):
    """A GPU that a server computes on."""

    name: str
    uuid: str
    memory_mib: int
    """Its memory, or the server's part of it if several share it."""

    @classmethod
    def from_proto(cls, gpu: server_pb2.Gpu) -> Self:
        """Read the contract's message."""
        return cls(gpu.name, gpu.uuid, gpu.memory_mib)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server as the client sees it."""

    endpoint: str
    """``HOST:PORT``; empty for a registration that cannot be used."""
    service: str = ""
    """Full gRPC name; empty if nobody could say."""
    reachable: bool = False
    serving: bool = False
    """Ready to take calls, by its health service."""
    model: Model | None = None
    concurrency: int = 0
    """Requests that it works on at the same time; 0 if unknown."""
    queue: int = 0
    """Requests that may wait besides; 0 if unknown."""
    version: str = ""
    heartbeat_age: float | None = None
    """Seconds since it renewed its registration; None without one."""
    gpu: Gpu | None = None
    """None if it computes on CPU."""
    batch_seconds: float = 0.0
    """Most seconds of audio, padding included, that it computes in one batch; 0 if it gathers none."""
    registration: str = ""
    """Its registration's id: the name of its file in the registry; empty without one, as all that follows."""
    launch: str = ""
    """``LAUNCH/JOB``: what started it, and as which job; empty if it was started by hand."""
    host: str = ""
    pid: int = 0
    started: float | None = None
    """When it was ready, in seconds since the epoch."""
    slurm_job: str = ""
    """``JOB`` or ``JOB_TASK``; empty outside SLURM."""
    node: str = ""
    """In SLURM's words; empty outside it."""
    ends: float | None = None
    """When its allocation ends, in seconds since the epoch; None if it does not, or nobody knows."""
    problem: str = ""
    """What is wrong with it and what to do; empty if nothing is."""


def _timed_text(item: asr_pb2.Segment | asr_pb2.Word) -> tuple[str, float, float, float | None]:
    confidence = item.confidence if item.HasField("confidence") else None
    return item.text, seconds_of(item.start), seconds_of(item.end), confidence


def seconds_of(duration: Duration) -> float:
    """Read the contract's duration."""
    return duration.seconds + duration.nanos / 1e9

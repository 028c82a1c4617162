"""What recognises speech, as the service sees it: every engine has this face, whatever it runs on."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from amela.common.v1.server_pb2 import Gpu
from amela_common.audio import Clip


class Word(NamedTuple):
    """A recognised word.

    Attributes
    ----------
    text
        As it stands in the recognised text.
    start, end
        Seconds from the start of what was recognised.
    confidence
        0 to 1. None: the engine does not say.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Recognition:
    """What an engine heard in one clip.

    Attributes
    ----------
    text
        Empty if it heard no word.
    words
        The words of `text` in order. None: the engine was not asked for them or has no times.
    confidence
        Of the whole text, 0 to 1. None: the engine does not say, or there is no text.
    """

    text: str
    words: tuple[Word, ...] | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Options:
    """What one request asks of an engine.

    Attributes
    ----------
    words
        Whether it wants words with their times.
    confidence
        Whether it wants confidences.
    language
        BCP 47 tag of the language spoken. None: the model's own choice.
    prompt
        Instruction to the model. None: the model's default.
    max_new_tokens
        Most tokens to write for one clip. None: the model's default.
    """

    words: bool = False
    confidence: bool = False
    language: str | None = None
    prompt: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """Which of the `Options` an engine can follow.

    Attributes
    ----------
    languages
        BCP 47 tags that it can be told. Empty: it takes no language.
    """

    word_times: bool = False
    word_confidence: bool = False
    languages: tuple[str, ...] = ()
    prompt: bool = False
    max_new_tokens: bool = False


class Engine(Protocol):
    """Recognises clips, several at a time.

    The service calls `recognize` for each piece of each request as it comes, never for more than
    `concurrency` pieces of one recording at the same time. An engine that computes in batches
    collects these calls itself.
    """

    name: str
    """In lower case, as ``--engine`` has it."""
    model: str
    """The model as its users call it."""
    device: str
    """``cpu``, ``cuda:0``, …"""
    gpu: Gpu | None
    """Which GPU that is. Known after `load`. None: a CPU, or another process's."""
    batch_seconds: float
    """Most seconds of audio, padding included, in one batch. Known after `load`. 0: it gathers no batches."""
    fingerprint: str
    """Digest over weights, configuration and the code that changes results. Known after `load`."""
    warnings: tuple[str, ...]
    """What a user should know about the model."""
    capabilities: Capabilities
    sample_rate: int
    """Of the clips that it takes, in Hz."""
    max_piece_seconds: float
    """Longest clip that it takes."""
    concurrency: int
    """Clips that it can make use of at the same time."""

    async def load(self) -> None:
        """Load the model and run a canary through it; raises `ConfigError`."""

    async def recognize(self, clip: Clip, options: Options, caller: Hashable) -> Recognition:
        """Recognise one clip of speech.

        Callers, each with as many clips as they like, get equal shares of an engine that is busy.

        A call that is cancelled before its clip is under way costs no work. Raises
        `RequestError` for this clip alone; its neighbours in a batch are not touched.
        """

    async def close(self) -> None:
        """Free everything, also after a `load` that failed half way."""

"""What a request asks to hear, and what a server lets it ask for."""

from dataclasses import dataclass, field
from typing import Self

from amela.common.v1 import audio_pb2

from amela_common.durations import MAX_SECONDS, from_duration
from amela_common.errors import RequestError

# Bytes. Linux opens no longer one (PATH_MAX, which counts the NUL at its end), and finding out
# where it leads takes time that grows with the square of its length.
_LONGEST_PATH = 4095


@dataclass(frozen=True)
class AudioLimits:
    """What a server refuses to read.

    Parameters
    ----------
    roots
        Folders that paths must lie under: absolute, symbolic links resolved.
        Without any, every path is refused.
    max_seconds
        Longest stretch of audio, in seconds. None: any.
    max_bytes
        Largest recording that may come inside a request, in bytes. None: any.
    """

    roots: tuple[str, ...] = ()
    max_seconds: float | None = None
    max_bytes: int | None = None


@dataclass(frozen=True)
class AudioSource:
    """A recording, a stretch of it, and a channel of it.

    Parameters
    ----------
    path
        Absolute path of the recording; None if `content` holds it.
    content
        The bytes of a whole encoded file; None if `path` leads to it.
    start
        Where the stretch starts, in seconds from the beginning of the recording.
    duration
        How long the stretch is, in seconds. None: up to the end.
    channel
        Channel to take, from 0. None: the mean of all channels.

    Raises
    ------
    RequestError
        INVALID_REQUEST, whose metadata's ``field`` names the field of the request that is wrong.
    """

    path: str | None = None
    content: bytes | None = field(default=None, repr=False)
    start: float = 0.0
    duration: float | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.content is None):
            raise _invalid("audio", "audio: give either a path or the content of a file")
        if self.path is not None:
            _check_path(self.path, self.name)
        if not 0 <= self.start <= MAX_SECONDS:
            raise self.error(
                "INVALID_REQUEST", f"cannot start at {self.start} s; give 0 s or more", field="audio.start"
            )
        if self.duration is not None and not 0 < self.duration <= MAX_SECONDS:
            raise self.error(
                "INVALID_REQUEST",
                f"cannot take {self.duration} s of it; give more than 0 s, or nothing for all of it",
                field="audio.duration",
            )
        if self.channel is not None and self.channel < 0:
            raise self.error(
                "INVALID_REQUEST", f"channel {self.channel}: channels count from 0", field="audio.channel"
            )

    @classmethod
    def from_proto(cls, audio: audio_pb2.Audio) -> Self:
        """Take a request's ``amela.common.v1.Audio``; raises as the class does."""
        return cls(
            path=audio.path if audio.HasField("path") else None,
            content=audio.content if audio.HasField("content") else None,
            start=from_duration(audio.start),
            duration=from_duration(audio.duration) if audio.HasField("duration") else None,
            channel=audio.channel if audio.HasField("channel") else None,
        )

    @property
    def name(self) -> str:
        """What messages call the recording: its path, quoted where it would not print."""
        if self.path is None:
            return "the audio sent with the request"
        return self.path if self.path and self.path.isprintable() else repr(self.path)

    def error(self, reason: str, message: str, **metadata: str) -> RequestError:
        """Make the error that says what is wrong with this recording, by name."""
        if self.path is not None:
            metadata["path"] = self.name
        return RequestError(reason, f"{self.name}: {message}", retry_after=None, **metadata)


def _check_path(path: str, name: str) -> None:
    try:
        length = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        fault = "is not a path: it holds half a surrogate pair"
    else:
        if not path:
            fault = "the path is empty"
        elif length > _LONGEST_PATH:
            name, fault = f"{path[:60]!r}…", f"has {length} bytes, and a path has {_LONGEST_PATH} at most"
        elif "\0" in path:
            fault = "is not a path: it holds a NUL character"
        elif not path.startswith("/"):
            fault = "is relative; the server needs the absolute path"
        else:
            return
    raise _invalid("audio.path", f"{name}: {fault}")


def _invalid(field: str, message: str) -> RequestError:
    return RequestError("INVALID_REQUEST", message, field=field)

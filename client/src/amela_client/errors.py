"""What the client raises on purpose: one short hierarchy."""

from collections.abc import Mapping
from typing import ClassVar


class ClientError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    """What a command ends with that it ends."""


class SetupError(ClientError):
    """What was asked for cannot work as things are set up. Nothing was begun."""

    exit_code = 2


class SubmissionError(SetupError):
    """A job was refused when it was handed in; the message has the launcher's words."""


class SlurmError(ClientError):
    """SLURM cannot be asked, or answers what cannot be understood."""


class LaunchError(ClientError):
    """There is no such launch, or servers of one failed, were not ready in time, or did not end."""


class ManifestError(ClientError):
    """A manifest cannot be used as a whole; one bad line is a `Fault` instead."""


class JournalError(ClientError):
    """A journal belongs to another run, is in use, is no journal, or cannot be written."""


class MergeError(ClientError):
    """Results cannot be put together or written; what was there before is untouched."""


class OutputError(ClientError):
    """A file of results cannot be written; what is done is kept."""


class ScoreError(ClientError):
    """There is nothing to score."""


class NoServersError(ClientError):
    """No server was found; the message says where the client looked and what to type."""


class CallError(ClientError):
    """A call failed for good, after every try that made sense.

    Parameters
    ----------
    reason
        A value's name in ``amela.common.v1.ErrorReason`` without its prefix, or a gRPC status code's name
        where the server gave none.
    message
        What was wrong, in the server's words.
    transient
        Whether the same request can succeed later or on another server.
    retry_after
        Seconds after which another try makes sense, if the server said so.
    metadata
        What the failure is about, for programs: ``path``, ``field``, ``limit``, …
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.transient = transient
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})


class DiscoveryError(ClientError):
    """A registry, an address, a certificate or a token cannot be used; the message says how to mend it."""


class MixedModelsError(ClientError):
    """Servers of one service run different models, whose results would differ."""

"""The failures of a server: of one request, or of its set-up."""


class AmelaError(Exception):
    """Base of every error that these packages raise on purpose."""


class ConfigError(AmelaError):
    """The server cannot start as it was asked to; the message says how to mend it."""


class RequestError(AmelaError):
    """One request failed; others are not touched.

    Parameters
    ----------
    reason
        A value's name in ``amela.common.v1.ErrorReason`` without its prefix.
    message
        What was wrong, with which value, where, and what to do.
    retry_after
        Seconds after which another try makes sense, if that is known.
    metadata
        What the failure is about, for programs: ``path``, ``field``, ``limit``, …
    """

    def __init__(
        self, reason: str, message: str, *, retry_after: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.metadata = metadata

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send these through a pipe, and keyword-only arguments do not survive the default way.
        return _rebuild, (self.reason, self.message, self.retry_after, self.metadata)


def _rebuild(reason: str, message: str, retry_after: float | None, metadata: dict[str, str]) -> RequestError:
    return RequestError(reason, message, retry_after=retry_after, **metadata)

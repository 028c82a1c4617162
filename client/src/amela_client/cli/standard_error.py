"""Standard error, on a full disk or without a reader: what is shown is worth less than the run."""

import contextlib
import io
import os
import sys
from typing import TextIO


class StandardError:
    """Standard error as a file of which nothing fails. What cannot be written is not shown."""

    def __init__(self) -> None:
        # None if it was closed before this program began.
        self._stream = sys.stderr or io.StringIO()

    def write(self, text: str) -> int:
        """Write text if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def give_up_unwritten() -> None:
    """Forget what standard error still holds if it cannot be written.

    The interpreter would try once more at its end, and make of that the exit code of the command.
    """
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

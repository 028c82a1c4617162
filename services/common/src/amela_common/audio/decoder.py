"""What every decoder does, and how it says that a file is broken."""

from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from amela_common.audio.source import AudioSource
from amela_common.errors import RequestError


class Decoder(Protocol):
    """An open recording, decoded from its beginning to its end."""

    @property
    def sample_rate(self) -> int:
        """Frames per second."""

    @property
    def channels(self) -> int:
        """Samples per frame."""

    @property
    def frames(self) -> int | None:
        """Length in frames, where that is certain before the end."""

    def seek(self, frame: int) -> int:
        """Go forward to `frame`, exactly; return it, or the length of a recording that ends before."""

    def read(self, frames: int) -> NDArray[np.float32]:
        """Decode on: float32[channels, n], where n is at most `frames`, and 0 only at the end."""

    def close(self) -> None:
        """Give back what the decoder holds; the file stays open."""


def broken(source: AudioSource, file: BinaryIO, seconds: float) -> RequestError:
    """Make the error of a decoder that cannot go on `seconds` into a recording.

    What tells a file that was cut from one that was damaged is whether the
    decoder had reached the end of it.
    """
    if file.read(1):
        return source.error("AUDIO_CORRUPT", f"cannot be decoded from {seconds:.3f} s on; copy it again")
    return source.error("AUDIO_TRUNCATED", f"breaks off at {seconds:.3f} s; copy it again")

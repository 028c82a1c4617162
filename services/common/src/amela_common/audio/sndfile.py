"""libsndfile: linear, companded and FLAC samples, which it seeks in exactly."""

from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from amela_common.audio.decoder import broken
from amela_common.audio.source import AudioSource
from amela_common.errors import RequestError


class SndfileDecoder:
    """A recording that libsndfile decodes."""

    def __init__(self, sound: soundfile.SoundFile, file: BinaryIO, source: AudioSource) -> None:
        self.sample_rate: int = sound.samplerate
        self.channels: int = sound.channels
        self.frames: int = sound.frames
        self._sound = sound
        self._file = file
        self._source = source
        self._position = 0

    @classmethod
    def open(cls, file: BinaryIO, source: AudioSource) -> "SndfileDecoder | None":
        """Open a file, or return None if libsndfile cannot read it to its end, or cannot seek in it.

        Raises
        ------
        RequestError
            AUDIO_NO_SUCH_CHANNEL if the header says that there are none, AUDIO_UNSUPPORTED if it
            says that there are more than libsndfile's 1024.
        """
        try:
            sound = soundfile.SoundFile(file)
        except soundfile.LibsndfileError as error:
            match error.error_string:
                case "Channel count is zero." | "Bad channel count.":
                    raise source.error("AUDIO_NO_SUCH_CHANNEL", "has no channels, says its header") from None
                case "Too many channels specified.":
                    raise source.error(
                        "AUDIO_UNSUPPORTED", "has too many channels, says its header"
                    ) from None
            return None
        if not sound.seekable() or not 0 < sound.frames < _UNKNOWN:
            sound.close()
            return None
        return cls(sound, file, source)

    def seek(self, frame: int) -> int:
        """Go to `frame`, or to the end if that comes before; raises as `read` does."""
        try:
            self._position = self._sound.seek(min(frame, self.frames))
        except soundfile.LibsndfileError:
            raise self._broken() from None
        return self._position

    def read(self, frames: int) -> NDArray[np.float32]:
        """Decode on; raises AUDIO_TRUNCATED, AUDIO_CORRUPT."""
        try:
            block: NDArray[np.float32] = self._sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            raise self._broken() from None
        self._position += len(block)
        if not len(block) and self._position < self.frames:
            raise self._broken()
        return block.T

    def close(self) -> None:
        """Close libsndfile's side of the file."""
        self._sound.close()

    def _broken(self) -> RequestError:
        # Before it failed, libsndfile may have decoded a part of what was asked for.
        return broken(self._source, self._file, max(0, self._sound.tell()) / self.sample_rate)


_UNKNOWN = 2**63 - 1
"""Frames that libsndfile counts where a header does not tell."""

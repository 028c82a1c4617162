"""FFmpeg's libraries: lossy samples, and the audio track of video."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from amela_common.audio.containers import mp3_counts_frames
from amela_common.audio.decoder import broken
from amela_common.audio.ogg_pages import begins_whole, ends_whole
from amela_common.audio.source import AudioSource
from amela_common.errors import RequestError

_DEMUXERS = (
    "3gp,8svx,aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,nistsphere,ogg,tta,voc,w64,wav,wv"
)
"""Containers that hold their samples themselves; playlists, which FFmpeg reads too, open other files."""

_CONTINUOUS = {"ogg", "matroska,webm", "flac"}
"""Containers whose demuxers pass over damage in silence: it shows as a gap in the time stamps."""

_TOLERANCE = 0.25
"""Seconds that a stated length or a time stamp may be off: encoders' padding, rounded clocks."""


class LibavDecoder:
    """A recording that FFmpeg decodes, always from its very beginning: its seeks are not exact.

    Time counts decoded samples, as it does for the other formats; time stamps
    only serve to notice what is missing.
    """

    frames = None

    def __init__(self, file: BinaryIO, source: AudioSource) -> None:
        self._file = file
        self._source = source
        self._counts_frames = mp3_counts_frames(file)
        if not begins_whole(file):
            raise self._corrupt("is damaged at its beginning")
        file.seek(0)
        self._container = av.open(
            file,
            "r",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": ""},
            metadata_errors="replace",
        )
        try:
            self._stream = self._audio_track()
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise source.error("AUDIO_EMPTY", "has a header, but no samples")
        except BaseException:
            self._container.close()
            raise
        self.sample_rate: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self._current = first
        self._taken = 0
        self._position = 0

    @classmethod
    def open(cls, file: BinaryIO, source: AudioSource) -> "LibavDecoder | None":
        """Open a file, or return None if it makes no sense to FFmpeg.

        Raises
        ------
        RequestError
            AUDIO_CORRUPT for an Ogg whose beginning is damaged, AUDIO_UNSUPPORTED for a file without an
            audio track or with an unknown codec, AUDIO_EMPTY for one without samples,
            AUDIO_NO_SUCH_CHANNEL for one without channels, and as `read` does.
        """
        try:
            return cls(file, source)
        except av.error.EOFError:
            raise source.error("AUDIO_EMPTY", "has a header, but no samples") from None
        except av.error.FFmpegError:
            return None

    def seek(self, frame: int) -> int:
        """Decode up to `frame`; raises as `read` does."""
        while self._position < frame and self._has_more():
            self._take(frame - self._position)
        return self._position

    def read(self, frames: int) -> NDArray[np.float32]:
        """Decode on; raises AUDIO_TRUNCATED, AUDIO_CORRUPT."""
        blocks = [np.empty((self.channels, 0), np.float32)]
        end = self._position + frames
        while self._position < end and self._has_more():
            blocks.append(_samples(self._current)[:, self._take(end - self._position)])
        return np.concatenate(blocks, axis=1)

    def close(self) -> None:
        """Close FFmpeg's side of the file."""
        self._container.close()

    def _has_more(self) -> bool:
        # The next packet is not decoded before its samples are asked for: damage further on does not matter.
        while self._taken == self._current.samples:
            following = next(self._frames, None)
            if following is None:
                return False
            self._current, self._taken = following, 0
        return True

    def _take(self, frames: int) -> slice:
        start = self._taken
        self._taken = min(start + frames, self._current.samples)
        self._position += self._taken - start
        return slice(start, self._taken)

    def _audio_track(self) -> av.AudioStream:
        streams = self._container.streams
        # FFmpeg's best track is none without channels.
        stream = streams.best("audio") or next(iter(streams.audio), None)
        if not isinstance(stream, av.AudioStream):
            raise self._source.error("AUDIO_UNSUPPORTED", "holds no audio track")
        # NumPy takes any samples from PyAV but 64-bit integers.
        if stream.codec_context is None or stream.codec_context.name.startswith("pcm_s64"):
            raise self._source.error("AUDIO_UNSUPPORTED", "is coded in a way that no decoder here knows")
        if stream.channels == 0:
            raise self._source.error("AUDIO_NO_SUCH_CHANNEL", "has no channels, says its header")
        stream.codec_context.thread_count = 1
        return stream

    def _decode(self) -> Iterator[av.AudioFrame]:
        decoded = 0
        rate = channels = None
        due = None
        fault = None
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    # Damage, or something that follows the end: the next packets tell.
                    fault = error
                    continue
                for frame in frames:
                    rate = rate or frame.sample_rate
                    channels = channels or frame.layout.nb_channels
                    seconds = decoded / rate
                    if fault is not None:
                        raise self._corrupt(f"cannot be decoded at {seconds:.3f} s")
                    if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                        raise self._corrupt(f"changes its sample rate or channels at {seconds:.3f} s")
                    if due is not None and frame.time is not None and frame.time > due + _TOLERANCE:
                        raise self._corrupt(f"misses {frame.time - due:.3f} s of audio at {seconds:.3f} s")
                    if frame.time is not None and self._container.format.name in _CONTINUOUS:
                        due = frame.time + frame.samples / rate
                    decoded += frame.samples
                    yield frame
        except av.error.FFmpegError as error:
            fault = error
        length = self._stated_length()
        seconds = decoded / rate if rate else 0.0
        if (fault is not None or length is not None) and seconds < (length or math.inf) - _TOLERANCE:
            raise broken(self._source, self._file, seconds)
        if self._container.format.name == "ogg" and not ends_whole(self._file):
            raise self._corrupt("is damaged near its end")

    def _stated_length(self) -> float | None:
        duration, unit = self._stream.duration, self._stream.time_base
        match self._container.format.name:
            case "matroska,webm" if not self._container.streams.video:
                duration, unit = self._container.duration, Fraction(1, av.time_base)
            case "mp3" if self._counts_frames:
                pass
            case "mov,mp4,m4a,3gp,3g2,mj2":
                pass
            case _:
                # What FFmpeg says of others it guesses from their size, or takes from the video.
                return None
        return float(duration * unit) if duration and unit else None

    def _corrupt(self, fault: str) -> RequestError:
        return self._source.error("AUDIO_CORRUPT", f"{fault}; copy it again")


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    full_scale = np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    floats = samples.astype(np.float32) / full_scale
    return floats - 1 if samples.dtype.kind == "u" else floats

"""Recordings of every kind, written by the encoders that people use."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from amela_common.audio import AudioLimits, AudioSource, load_clip
from amela_common.errors import RequestError
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Refused = Callable[..., AbstractContextManager[None]]
Wav = Callable[..., bytes]
Write = Callable[..., bytes]
Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def speech(examples: Path) -> Samples:
    """Two sentences in a row: float32[161440] at 16 kHz."""
    first_two = sorted(examples.glob("*.flac"))[:2]
    return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in first_two])


@pytest.fixture
def limits(tmp_path: Path) -> AudioLimits:
    """Limits that allow what the test itself wrote."""
    return AudioLimits(roots=(str(tmp_path.resolve()),))


@pytest.fixture(scope="session")
def read() -> Callable[..., Samples]:
    """Read bytes at 16 kHz, or at `rate`: ``read(content, start=1.0)``."""

    def read(
        content: bytes, rate: int = 16_000, max_seconds: float | None = None, **stretch: float
    ) -> Samples:
        return load_clip(
            AudioSource(content=content, **stretch), rate, AudioLimits(max_seconds=max_seconds)
        ).samples

    return read


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Expect a reason, in an error that names the recording: ``with refused("AUDIO_EMPTY"): …``."""

    @contextmanager
    def refused(reason: str, path: object = None, match: str | None = None) -> Iterator[None]:
        with pytest.raises(RequestError, match=match) as caught:
            yield
        assert caught.value.reason == reason, caught.value.message
        name = "the audio sent with the request" if path is None else str(path)
        assert caught.value.message.startswith(f"{name}: ")

    return refused


@pytest.fixture(scope="session")
def wav() -> Wav:
    """Write a WAV header as it comes, true or not."""

    def wav(
        data: bytes = bytes(3200),
        *,
        size: int | None = None,
        riff: int | None = None,
        channels: int = 1,
        rate: int = 16_000,
        bits: int = 16,
        code: int = 1,
        before: bytes = b"",
        after: bytes = b"",
    ) -> bytes:
        frame = channels * bits // 8
        form = struct.pack("<HHIIHH", code, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
        chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + before
        chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data + after
        return b"RIFF" + struct.pack("<I", len(chunks) if riff is None else riff) + chunks

    return wav


@pytest.fixture(scope="session")
def write() -> Write:
    """Write with libsndfile: ``write(samples, "FLAC", "PCM_24", rate=48_000)``."""

    def write(samples: Samples, kind: str = "WAV", subtype: str | None = None, rate: int = 16_000) -> bytes:
        file = io.BytesIO()
        with soundfile.SoundFile(
            file, "w", rate, 1 if samples.ndim == 1 else samples.shape[1], subtype, format=kind
        ) as sound:
            # All at once, libsndfile's Vorbis encoder overflows its stack.
            for start in range(0, len(samples), 4096):
                sound.write(samples[start : start + 4096])
        return file.getvalue()

    return write


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encode 16 kHz mono samples with FFmpeg: ``encode(samples, "ipod", "aac", rate=44_100)``."""

    def encode(
        samples: Samples, container: str, codec: str, rate: int = 48_000, video: bool = False, **options: str
    ) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container, options=options) as output:
            stream = output.add_stream(codec, rate=rate, layout="mono")
            if video:
                _add_frames(output, len(samples) / 16_000)
            whole = av.AudioFrame.from_ndarray(soxr.resample(samples, 16_000, rate)[None], "fltp", "mono")
            whole.sample_rate, whole.time_base, whole.pts = rate, Fraction(1, rate), 0
            resampler = av.AudioResampler(stream.codec_context.format, "mono", rate)
            fifo = av.AudioFifo()
            for frame in [*resampler.resample(whole), *resampler.resample(None)]:
                fifo.write(frame)
            while (frame := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return file.getvalue()

    return encode


def _add_frames(output: av.container.OutputContainer, seconds: float) -> None:
    stream = output.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(int(seconds * 10)):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 256, np.uint8), "rgb24")
        picture.pts = number
        output.mux(stream.encode(picture))
    output.mux(stream.encode(None))

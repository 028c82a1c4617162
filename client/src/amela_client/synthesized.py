"""Audio that a vocoder made, as `Synthesize` and `Resynthesize` answer it."""

import tempfile
import wave
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Self

from amela.sts.v1.sts_pb2 import ResynthesizeResponse, SynthesizeResponse

from amela_client.errors import OutputError
from amela_client.results import Model, seconds_of

_SAMPLE_BYTES = 4
_FULL_SCALE = 32767
_BLOCK_BYTES = 1 << 20
# What most results have room in; many calls are under way at a time.
_MEMORY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SynthesizedAudio:
    """Mono audio. All but the shortest lies in a temporary file, which goes when the object does."""

    sample_rate: int
    """In Hz."""
    audio_seconds: float
    units: "array[int]"
    """Of a resynthesis: the unit of each frame. Else empty."""
    model: Model
    _spool: IO[bytes]

    @classmethod
    async def collect(cls, parts: AsyncIterator[SynthesizeResponse | ResynthesizeResponse]) -> Self:
        """Put the parts of an answer together.

        Raises
        ------
        ValueError
            If they do not make a whole one.
        OutputError
            If the temporary folder has no room.
        """
        spool = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - it lasts as long as the result
        units, size = array("I"), 0
        last: SynthesizeResponse | ResynthesizeResponse = SynthesizeResponse()
        async for part in parts:
            try:
                spool.write(part.samples)
            except OSError as error:
                raise OutputError(
                    f"{tempfile.gettempdir()} cannot take long audio: {error.strerror}. Make room there, or"
                    " name a folder that has some with TMPDIR"
                ) from None
            size += len(part.samples)
            if isinstance(part, ResynthesizeResponse):
                units.extend(part.units)
            last = part
        seconds = seconds_of(last.audio_duration)
        if not last.HasField("model") or not seconds or not size or size % _SAMPLE_BYTES:
            raise ValueError("the last part is missing")
        # Nanoseconds are fine enough for this to be the very rate that the server's GetInfo has.
        sample_rate = round(size / _SAMPLE_BYTES / seconds)
        return cls(sample_rate, seconds, units, Model.from_proto(last.model), spool)

    @property
    def samples(self) -> "array[float]":
        """All of it, as float32 from -1 to 1; ``numpy.asarray`` takes it as it is."""
        samples = array("f")
        for block in self._blocks():
            samples.frombytes(block)
        return samples

    def write_wav(self, file: BinaryIO) -> None:
        """Write a WAV file of 16-bit samples."""
        import numpy as np  # noqa: PLC0415 - as long to load as all of the client

        with wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(self.sample_rate)
            for block in self._blocks():
                samples = np.frombuffer(block, "<f4").clip(-1, 1) * _FULL_SCALE
                wav.writeframesraw(np.rint(samples).astype("<i2").tobytes())

    def _blocks(self) -> Iterator[bytes]:
        self._spool.seek(0)
        while block := self._spool.read(_BLOCK_BYTES):
            yield block

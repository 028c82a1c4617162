"""Discrete units of speech, as `Encode` answers them."""

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO, Self

from amela.sts.v1.sts_pb2 import EncodeResponse

from amela_client.results import Model, seconds_of


@dataclass(frozen=True, slots=True)
class Units:
    """What one recording is in units. The arrays are such that ``numpy.asarray`` takes them as they are."""

    units: "array[int]"
    """Ids from 0 to the model's vocabulary - 1."""
    durations: "array[int]"
    """How many frames each of them lasts: all 1 without deduplication."""
    dense_features: "array[float]"
    """float32, frame after frame, `feature_dim` values each. Empty unless asked for."""
    audio_seconds: float
    """How much audio was looked at."""
    model: Model

    @property
    def feature_dim(self) -> int:
        """Width of a dense feature frame; 0 if there are none."""
        return len(self.dense_features) // (sum(self.durations) or 1)

    @classmethod
    async def collect(cls, parts: AsyncIterator[EncodeResponse]) -> Self:
        """Put the parts of an answer together.

        Raises
        ------
        ValueError
            If they do not make a whole one.
        """
        units, durations, features = array("I"), array("I"), array("f")
        last = EncodeResponse()
        async for part in parts:
            units.extend(part.units)
            durations.extend(part.durations)
            features.frombytes(part.dense_features)
            last = part
        if not last.HasField("model") or len(units) != len(durations):
            raise ValueError("the last part is missing")
        return cls(units, durations, features, seconds_of(last.audio_duration), Model.from_proto(last.model))

    def write_npz(self, file: BinaryIO) -> None:
        """Write ``units`` and ``durations`` for ``numpy.load``, as int32."""
        import numpy as np  # noqa: PLC0415 - as long to load as all of the client

        np.savez(file, units=np.asarray(self.units, np.int32), durations=np.asarray(self.durations, np.int32))

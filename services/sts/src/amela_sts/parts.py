"""Answers in parts that are small enough to be sent."""

from collections.abc import Iterator

import numpy as np
from amela.sts.v1 import sts_pb2
from numpy.typing import NDArray

from amela_sts.units import Ints

# Besides samples and features a part has units, durations and its frame.
_LARGEST_PART = 4 << 20
_BYTES_OF_A_UNIT = 10


def part_bytes(max_message_bytes: int) -> int:
    """Choose how many bytes a part may hold."""
    return min(_LARGEST_PART, max_message_bytes // 2)


def encoded_parts(
    units: Ints, durations: Ints, features: NDArray[np.float32] | None, size: int
) -> Iterator[sts_pb2.EncodeResponse]:
    """Split what a window became: units with their durations, then features, by rows."""
    step = max(1, size // (2 * _BYTES_OF_A_UNIT))
    rows = max(1, size // (4 * features.shape[1])) if features is not None else 1
    unit, row = 0, 0
    while True:
        part = sts_pb2.EncodeResponse(
            units=units[unit : unit + step], durations=durations[unit : unit + step]
        )
        unit += step
        if features is not None:
            part.dense_features = little_endian(features[row : row + rows])
            row += rows
        yield part
        if unit >= len(units) and (features is None or row >= len(features)):
            return


def spoken_parts(samples: NDArray[np.float32], hop: int, size: int) -> Iterator[tuple[slice, bytes]]:
    """Split samples into parts of whole units: which units they are, and the samples' bytes."""
    step = max(1, size // (4 * hop + _BYTES_OF_A_UNIT))
    for start in range(0, len(samples) // hop, step):
        yield slice(start, start + step), little_endian(samples[start * hop : (start + step) * hop])


def little_endian(values: NDArray[np.float32]) -> bytes:
    """Write float32 as the contract has it, whatever this machine's order is."""
    return values.astype("<f4", copy=False).tobytes()

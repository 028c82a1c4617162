"""How large a batch may be on this very device: found by computing some."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from amela_common.batching.budget import DEFAULT_QUADRATIC, Budget

# What a calibrated budget leaves free: fragments, and other shapes than those that were measured.
SAFETY = 0.85
# A larger batch has to bring at least so much more throughput.
WORTHWHILE = 1.05
# A device of any size has found its best batch long before.
MAX_DOUBLINGS = 8


@dataclass(frozen=True)
class Measurement:
    """One batch that was computed.

    Attributes
    ----------
    count, longest
        Clips in it, and the length in seconds that they were padded to.
    memory
        Bytes that it took above what the model takes. None: it did not fit.
    elapsed
        Computing time in seconds.
    """

    count: int
    longest: float
    memory: float | None
    elapsed: float

    @property
    def throughput(self) -> float:
        """Seconds of audio in a second."""
        return self.count * self.longest / self.elapsed


@dataclass(frozen=True)
class MemoryModel:
    """Memory of a batch of B clips padded to T seconds: ``linear · B·T + square · B·T²`` bytes."""

    linear: float
    square: float

    @property
    def quadratic(self) -> float:
        """`Budget.quadratic` of a budget that goes by this model."""
        return self.square / self.linear if self.linear > 0 else DEFAULT_QUADRATIC

    def seconds(self, memory: float) -> float:
        """Cost, in padded seconds, of a batch that takes so many bytes."""
        return memory / self.linear if self.linear > 0 else float("inf")


def fit(measurements: Sequence[Measurement]) -> MemoryModel:
    """Fit the model to measurements of at least two lengths, by least squares without negative terms."""
    fitting = [measured for measured in measurements if measured.memory is not None]
    linear_terms = np.array([measured.count * measured.longest for measured in fitting])
    square_terms = np.array([measured.count * measured.longest**2 for measured in fitting])
    memory = np.array([measured.memory for measured in fitting], np.float64)
    terms = np.stack([linear_terms, square_terms], axis=1)
    linear, square = np.linalg.lstsq(terms, memory, rcond=None)[0]
    if square < 0:
        # The linear term alone, as high as the hungriest batch asks: too little memory is the costlier error.
        return MemoryModel(float(np.max(memory / linear_terms)), 0.0)
    if linear <= 0:
        return MemoryModel(float(np.max(memory / linear_terms)), 0.0)
    return MemoryModel(float(linear), float(square))


def calibrate(
    measure: Callable[[int, float], Measurement], start: int, piece_seconds: float, available: float
) -> Budget:
    """Find the smallest budget with about the best throughput, within the memory that there is.

    Parameters
    ----------
    measure
        Computes a batch of so many clips of so many seconds.
    start
        Clips in the first batch; halved while it does not fit.
    piece_seconds
        Length of the longest clips that there will be.
    available
        Bytes that batches may take.
    """
    measurements: list[Measurement] = []
    count = start
    best = measure(count, piece_seconds)
    while best.memory is None and count > 1:
        count //= 2
        best = measure(count, piece_seconds)
    if best.memory is None:
        return Budget(piece_seconds, items=1)
    measurements += [best, measure(count, piece_seconds / 4)]
    model = fit(measurements)
    for _ in range(MAX_DOUBLINGS):
        if not _budget(model, available).holds(2 * count, piece_seconds):
            break
        larger = measure(2 * count, piece_seconds)
        if larger.memory is None:
            break
        measurements.append(larger)
        model = fit(measurements)
        if larger.throughput < WORTHWHILE * best.throughput:
            break
        best, count = larger, 2 * count
    return _budget(model, available).lowered_to(count, piece_seconds)


def calibrate_throughput(
    measure: Callable[[int, float], Measurement], most: Budget, typical_seconds: float
) -> Budget:
    """Find the smallest budget with about the best throughput where memory is not what limits it.

    On a CPU that is often one clip: what a larger batch saves in overhead, it loses in the caches.

    Parameters
    ----------
    most
        Budget that is not exceeded.
    typical_seconds
        Length of the clips to measure with.
    """
    count, best = 1, measure(1, typical_seconds)
    while most.holds(2 * count, typical_seconds):
        larger = measure(2 * count, typical_seconds)
        if larger.throughput < WORTHWHILE * best.throughput:
            break
        count, best = 2 * count, larger
    return most.lowered_to(count, typical_seconds)


def _budget(model: MemoryModel, available: float) -> Budget:
    return Budget(model.seconds(SAFETY * available), model.quadratic)

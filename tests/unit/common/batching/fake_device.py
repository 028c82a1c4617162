"""A device whose memory is a number: these tests have no GPU."""

from collections.abc import Sequence

from amela_common.batching.calibration import Measurement
from amela_common.errors import RequestError

LINEAR = 4.7e6
SQUARE = 0.01e6


class FakeOutOfMemoryError(RuntimeError):
    """What the fake device raises beyond its limit."""


class FakeLostError(RuntimeError):
    """What the fake device raises once it is lost."""


class FakeDevice:
    """Stands for a GPU with a hard memory limit.

    A batch of B items padded to T seconds takes ``LINEAR·B·T + SQUARE·B·T²`` bytes, and
    ``overhead + B·T / speed`` seconds.
    """

    def __init__(self, limit: float = float("inf"), speed: float = 1000.0, overhead: float = 0.01) -> None:
        self.limit = limit
        self.speed = speed
        self.overhead = overhead
        self.batches: list[list[float]] = []
        self.caches_freed = 0
        self.poison: set[float] = set()
        self.refused: set[float] = set()
        self.lost = False
        self.lost_unseen = False

    def memory(self, count: int, longest: float) -> float:
        return LINEAR * count * longest + SQUARE * count * longest**2

    def compute(self, lengths: Sequence[float]) -> list[float | RequestError]:
        """Give back each item's length, which is what items are here."""
        self.batches.append(list(lengths))
        if self.lost:
            raise FakeLostError("the bus has lost the device")
        needed = self.memory(len(lengths), max(lengths))
        if needed > self.limit:
            raise FakeOutOfMemoryError(f"{needed} of {self.limit} bytes")
        if self.poison.intersection(lengths):
            raise ZeroDivisionError("a fault of this item")
        return [
            RequestError("AUDIO_NOT_FINITE", "NaN") if length in self.refused else length
            for length in lengths
        ]

    def measure(self, count: int, longest: float) -> Measurement:
        memory = self.memory(count, longest)
        fits = memory <= self.limit
        elapsed = self.overhead + count * longest / self.speed
        return Measurement(count, longest, memory if fits else None, elapsed)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, FakeOutOfMemoryError)

    def is_broken(self, error: BaseException) -> bool:
        return isinstance(error, FakeLostError)

    def free_cache(self) -> None:
        self.caches_freed += 1
        if self.lost_unseen:
            # As CUDA does when what it computed at last had broken it.
            raise FakeLostError("the bus has lost the device")

"""How much one batch may hold, in the unit that its memory goes by: padded seconds."""

from dataclasses import dataclass, replace

# A FastConformer-L takes 4.7·B·T + 0.01·B·T² MB for B clips padded to T seconds.
DEFAULT_QUADRATIC = 0.01 / 4.7


@dataclass(frozen=True)
class Budget:
    """The most that a batch may cost.

    A batch of B clips, padded to the longest one's T seconds, costs ``B · (T + quadratic · T²)``:
    encoders take memory in proportion to what they see, attention to its square.

    Attributes
    ----------
    seconds
        Highest cost, in padded seconds.
    quadratic
        What a second of length adds to the cost of each second, in 1/s.
    items
        Most clips. None: any number.
    """

    seconds: float
    quadratic: float = DEFAULT_QUADRATIC
    items: int | None = None

    def cost(self, count: int, longest: float) -> float:
        """Cost of `count` clips padded to `longest` seconds."""
        return count * (longest + self.quadratic * longest**2)

    def holds(self, count: int, longest: float) -> bool:
        """Whether a batch is within the budget. A clip alone always is: nothing smaller can be tried."""
        if count == 1:
            return True
        return (self.items is None or count <= self.items) and self.cost(count, longest) <= self.seconds

    def lowered_to(self, count: int, longest: float) -> "Budget":
        """Make the budget that holds such a batch, if this one holds more."""
        return replace(self, seconds=min(self.seconds, self.cost(count, longest)))


def start_items(memory_mib: float | None) -> int:
    """Choose the batch size to start from: a conservative one for a device's whole memory in MiB.

    None stands for a device without memory of its own.
    """
    if memory_mib is not None and memory_mib > 70_000:
        return 16
    if memory_mib is not None and memory_mib > 35_000:
        return 8
    return 4


def start_budget(memory_mib: float | None, piece_seconds: float) -> Budget:
    """Make the budget that holds `start_items` of the longest clips that there will be."""
    unlimited = Budget(float("inf"))
    return unlimited.lowered_to(start_items(memory_mib), piece_seconds)

"""The part of a GPU's memory that one process keeps to, so that several servers can share the GPU."""

from dataclasses import dataclass

# CUDA's context and its libraries' own memory, which PyTorch's allocator knows nothing of.
CONTEXT_BYTES = 512 << 20


@dataclass(frozen=True)
class MemoryShare:
    """What a process may take of a GPU.

    Attributes
    ----------
    total
        The GPU's memory in bytes.
    limit
        Bytes that the process may take of it in all.
    """

    total: int
    limit: int

    @property
    def fraction(self) -> float:
        """Part of the GPU's memory, 0 to 1, that PyTorch's allocator may take."""
        return min(1.0, self._allocatable / self.total)

    def free(self, free_on_gpu: float, allocated: float) -> float:
        """Count the bytes that batches may take.

        Parameters
        ----------
        free_on_gpu
            Bytes that nobody has taken.
        allocated
            Bytes that this process has taken through PyTorch.
        """
        return max(0.0, min(free_on_gpu, self._allocatable - allocated))

    @property
    def _allocatable(self) -> int:
        return max(0, self.limit - CONTEXT_BYTES)

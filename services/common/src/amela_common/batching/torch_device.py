"""PyTorch's devices: what their errors mean, how much memory they have, which precision suits them."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from amela.common.v1 import server_pb2

from amela_common.batching.calibration import Measurement
from amela_common.batching.memory_share import MemoryShare
from amela_common.batching.nvml import described, visible_gpu
from amela_common.batching.visible_gpus import MIB, Gpu
from amela_common.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The first generations with fast bfloat16 and fast float16 units, Ampere and Volta.
_BFLOAT16_CAPABILITY = (8, 0)
_FLOAT16_CAPABILITY = (7, 0)

# What a driver or a library says, in a plain RuntimeError, when the device is lost.
_BROKEN = (
    "CUDA error",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "device-side assert",
)
# What the libraries under PyTorch, and its allocator on CPU, say in a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class TorchDevice:
    """A device by PyTorch's name for it.

    Parameters
    ----------
    name
        ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``: the first GPU if there is one.

    Raises
    ------
    ConfigError
        If PyTorch does not see such a device.
    """

    def __init__(self, name: str = "auto") -> None:
        if name == "auto":
            name = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"--device {name}: take cpu, cuda or cuda:N") from error
        self.is_cuda = device.type == "cuda"
        if self.is_cuda:
            self.position = device.index or 0
            count = torch.cuda.device_count()
            if self.position >= count:
                raise ConfigError(
                    f"--device {name}: PyTorch sees {count} GPUs here;"
                    " look at CUDA_VISIBLE_DEVICES and the driver"
                )
            device = torch.device("cuda", self.position)
        elif device.type != "cpu":
            raise ConfigError(f"--device {name}: take cpu, cuda or cuda:N")
        self.torch = device
        self.name = str(device)
        self._share: MemoryShare | None = None

    def precision(self, name: str = "auto") -> torch.dtype:
        """Choose a type to compute in, by the name of an option; ``auto`` takes what the device is fast in.

        Raises
        ------
        ConfigError
            If there is no such precision, or not on this device.
        """
        capability = torch.cuda.get_device_capability(self.torch) if self.is_cuda else None
        if name == "auto":
            if capability is None or capability < _FLOAT16_CAPABILITY:
                return torch.float32
            return torch.bfloat16 if capability >= _BFLOAT16_CAPABILITY else torch.float16
        if name not in PRECISIONS:
            raise ConfigError(f"--precision {name}: take auto, {', '.join(PRECISIONS)}")
        if name == "fp16" and capability is None:
            raise ConfigError("--precision fp16: a CPU computes it slowly or not at all; take fp32 or bf16")
        return PRECISIONS[name]

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether less work at once can succeed."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)

    def is_broken(self, error: BaseException) -> bool:
        """Whether the process has to go: CUDA answers every later call with the same error."""
        if self.is_out_of_memory(error):
            # A library's "CUDA error: … ALLOC_FAILED", too, leaves the device as it was.
            return False
        if isinstance(error, torch.AcceleratorError):
            return True
        return (
            self.is_cuda and isinstance(error, RuntimeError) and any(said in str(error) for said in _BROKEN)
        )

    def free_cache(self) -> None:
        """Give back memory that no computation holds."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def keep_to(self, memory_mib: int | None) -> None:
        """Take no more of a GPU's memory than so much, so that others can share it; None: what there is."""
        if memory_mib is None or not self.is_cuda:
            return
        total = torch.cuda.get_device_properties(self.torch).total_memory
        self._share = MemoryShare(total, memory_mib * MIB)
        torch.cuda.set_per_process_memory_fraction(self._share.fraction, self.torch)

    @contextmanager
    def room_for(self, model: str) -> Iterator[None]:
        """Load a model within.

        Raises
        ------
        ConfigError
            If it does not fit into what `keep_to` has been told.
        """
        try:
            yield
        except Exception as error:
            if self._share is None or not self.is_out_of_memory(error):
                raise
            raise ConfigError(
                f"--gpu-memory-mib {self._share.limit // MIB}: {model} does not fit into it;"
                " give it more, or put fewer servers on a GPU"
            ) from error

    def free_memory(self) -> float | None:
        """Count the bytes that batches may take; None where that cannot be measured."""
        if not self.is_cuda:
            return None
        free = float(torch.cuda.mem_get_info(self.torch)[0])
        return self._share.free(free, torch.cuda.memory_allocated(self.torch)) if self._share else free

    def describe(self) -> server_pb2.Gpu | None:
        """Say which GPU this is, as NVML or, where that is not installed, PyTorch does; None on a CPU."""
        if not self.is_cuda:
            return None
        gpu = visible_gpu(self.position)
        if gpu is None:
            seen = torch.cuda.get_device_properties(self.torch)
            gpu = Gpu(seen.name, f"GPU-{seen.uuid}", seen.total_memory)
        return described(gpu, self._share.limit if self._share else None)

    def measure(self, compute: Callable[[], object], count: int, longest: float) -> Measurement:
        """Compute a batch of so many clips of so many seconds.

        The memory is that of CUDA's allocator, and 0 on a CPU, where nothing tells it.
        """
        if not self.is_cuda:
            since = time.perf_counter()
            compute()
            return Measurement(count, longest, 0.0, time.perf_counter() - since)
        try:
            torch.cuda.synchronize(self.torch)
            torch.cuda.reset_peak_memory_stats(self.torch)
            before = torch.cuda.memory_allocated(self.torch)
            since = time.perf_counter()
            compute()
            torch.cuda.synchronize(self.torch)
            elapsed = time.perf_counter() - since
            memory = float(torch.cuda.max_memory_allocated(self.torch) - before)
            return Measurement(count, longest, memory, elapsed)
        except Exception as error:
            if not self.is_out_of_memory(error):
                raise
        self.free_cache()
        return Measurement(count, longest, None, 0.0)

"""PyTorch's devices: what their errors mean, how much memory they have, which precision suits them."""

import gc
import time
from collections.abc import Callable

import torch

from amela_common.batching.calibration import Measurement
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
        if isinstance(error, torch.OutOfMemoryError):
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

    def free_memory(self) -> float | None:
        """Count the bytes that batches may take; None where that cannot be measured."""
        return float(torch.cuda.mem_get_info(self.torch)[0]) if self.is_cuda else None

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

"""A stand-in for NVML, which gives recorded answers in pynvml's form: these tests have no GPU."""

from typing import Any, NamedTuple

from .recorded_gpus import RecordedGpu, RecordedSlice

# Places for slices on one GPU, as XuehaiPan/nvitop issue 5 records NVML's answer.
_PLACES = 7


class Memory(NamedTuple):
    total: int
    free: int
    used: int


class FakeNvml:
    """Answers as pynvml does, for the GPUs that it is given.

    Parameters
    ----------
    driver
        Whether there is one.
    texts_as_bytes
        As bindings before nvidia-ml-py 11.525 did, and the package pynvml before 11.5: Atoptool/atop pull
        request 236, rossumai/nvgpu issue 29.
    slices_only
        An ordinary user, or a container, may not ask for the memory of a GPU that is cut:
        NVIDIA/nvidia-container-toolkit issue 842.
    """

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(
        self,
        *gpus: RecordedGpu,
        driver: bool = True,
        texts_as_bytes: bool = False,
        slices_only: bool = False,
    ) -> None:
        self._gpus = gpus
        self._driver = driver
        self._bytes = texts_as_bytes
        self._slices_only = slices_only
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> RecordedGpu:  # noqa: N802
        return self._gpus[index]

    def nvmlDeviceGetName(self, handle: RecordedGpu | RecordedSlice) -> Any:  # noqa: N802
        return handle.name.encode() if self._bytes else handle.name

    def nvmlDeviceGetUUID(self, handle: RecordedGpu | RecordedSlice) -> Any:  # noqa: N802
        return handle.uuid.encode() if self._bytes else handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: RecordedGpu | RecordedSlice) -> Memory:  # noqa: N802
        if self._slices_only and isinstance(handle, RecordedGpu) and handle.slices is not None:
            raise self.NVMLError("Insufficient Permissions")
        return Memory(handle.total, handle.total, 0)

    def nvmlDeviceGetMigMode(self, handle: RecordedGpu) -> list[int]:  # noqa: N802
        if not handle.knows_mig:
            raise self.NVMLError("Not Supported")
        return [0, 0] if handle.slices is None else [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: RecordedGpu) -> int:  # noqa: N802
        return 0 if handle.slices is None else _PLACES

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: RecordedGpu, index: int
    ) -> RecordedSlice:
        try:
            return (handle.slices or ())[index]
        except IndexError:
            raise self.NVMLError("Not Found") from None

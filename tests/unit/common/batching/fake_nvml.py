"""A stand-in for NVML, whose answers have the form that pynvml gives: these tests have no GPU."""

from typing import Any, NamedTuple

GIB = 1 << 30
MIB = 1 << 20


class Memory(NamedTuple):
    total: int
    free: int
    used: int


class FakeSlice(NamedTuple):
    uuid: str
    total: int


class FakeGpu(NamedTuple):
    uuid: str
    total: int
    slices: tuple[FakeSlice | None, ...] | None = None


A100_80 = FakeGpu("GPU-5c7a2b1e-0c3a-8f5d-9f0e-3b1f6a7d2c11", 81920 * MIB)
A100_40 = FakeGpu("GPU-5c7f90aa-71d2-4e6b-a1c9-0d8e4f3b2a77", 40960 * MIB)
V100_32 = FakeGpu("GPU-e2d4c6b8-1a3f-4b5c-8d7e-9f0a1b2c3d4e", 32768 * MIB)
SLICES = (
    FakeSlice("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", 40192 * MIB),
    None,
    FakeSlice("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", 19968 * MIB),
    None,
)
A100_MIG = FakeGpu("GPU-a1b2c3d4-5e6f-4a7b-8c9d-0e1f2a3b4c5d", 81920 * MIB, SLICES)
H200 = FakeGpu("GPU-0f9e8d7c-6b5a-4c3d-a2b1-c0d9e8f7a6b5", 143771 * MIB)


class FakeNvml:
    """Answers as pynvml does, for the GPUs that it is given."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus: FakeGpu, driver: bool = True, uuids_as_bytes: bool = False) -> None:
        self._gpus = gpus
        self._driver = driver
        self._bytes = uuids_as_bytes
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self._gpus[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> Any:  # noqa: N802
        return handle.uuid.encode() if self._bytes else handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Memory:  # noqa: N802
        return Memory(handle.total, handle.total, 0)

    def nvmlDeviceGetMigMode(self, handle: FakeGpu) -> list[int]:  # noqa: N802
        if handle in (V100_32,):
            raise self.NVMLError("Not Supported")
        return [0, 0] if handle.slices is None else [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeGpu) -> int:  # noqa: N802
        return len(handle.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: FakeGpu, index: int
    ) -> FakeSlice:
        found = (handle.slices or ())[index]
        if found is None:
            raise self.NVMLError("Not Found")
        return found

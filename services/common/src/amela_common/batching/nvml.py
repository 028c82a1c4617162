"""The GPUs of this node, as NVML tells."""

import importlib
import os
from typing import Any

from amela_common.batching.visible_gpus import MIB, Gpu, MigSlice, visible_gpus


def device_memory_mib(position: int = 0) -> float | None:
    """Ask for the memory of the process's `position`-th CUDA device, in MiB; None if there is no telling."""
    gpus = visible_gpus(read_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return gpus[position].total / MIB if position < len(gpus) else None


def read_gpus(nvml: Any = None) -> list[Gpu]:
    """List all GPUs of this node with their MIG slices; empty where there is no driver.

    Parameters
    ----------
    nvml
        The module to ask. Default: pynvml.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ModuleNotFoundError:
            # Images without a GPU's engine do without.
            return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(_uuid(nvml, handle), _total(nvml, handle), _read_slices(nvml, handle))


def _read_slices(nvml: Any, handle: Any) -> tuple[MigSlice, ...] | None:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        # Most GPUs know nothing of MIG.
        return None
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    slices = []
    for position in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, position)
        except nvml.NVMLError:
            # Positions are places for slices, and most are empty.
            continue
        slices.append(MigSlice(_uuid(nvml, part), _total(nvml, part)))
    return tuple(slices)


def _uuid(nvml: Any, handle: Any) -> str:
    uuid = nvml.nvmlDeviceGetUUID(handle)
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def _total(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)

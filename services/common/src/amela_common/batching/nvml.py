"""The GPUs of this node, as NVML tells."""

import importlib
import os
from typing import Any

from amela.common.v1 import server_pb2

from amela_common.batching.visible_gpus import MIB, Gpu, MigSlice, visible_gpus


def visible_gpu(position: int = 0, nvml: Any = None) -> Gpu | MigSlice | None:
    """Find the process's `position`-th CUDA device; None if there is no telling.

    Parameters
    ----------
    nvml
        As for `read_gpus`.
    """
    gpus = visible_gpus(read_gpus(nvml), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return gpus[position] if position < len(gpus) else None


def described(device: Gpu | MigSlice, limit: int | None = None) -> server_pb2.Gpu:
    """Describe a device as the contract does, with the bytes of it that a process may take if not all."""
    memory = device.total if limit is None else min(limit, device.total)
    return server_pb2.Gpu(name=device.name, uuid=device.uuid, memory_mib=memory // MIB)


def read_gpus(nvml: Any = None) -> list[Gpu]:
    """List all GPUs of this node with their MIG slices; empty where no driver tells.

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
    except nvml.NVMLError:
        # One of the node's GPUs is lost, say: places in the list would be wrong without it.
        return []
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    slices = _read_slices(nvml, handle)
    # Whoever has a slice of a GPU may not ask for the whole.
    total = _total(nvml, handle) if slices is None else 0
    return Gpu(_name(nvml, handle), _uuid(nvml, handle), total, slices)


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
        slices.append(MigSlice(_name(nvml, part), _uuid(nvml, part), _total(nvml, part)))
    return tuple(slices)


def _name(nvml: Any, handle: Any) -> str:
    return _text(nvml.nvmlDeviceGetName(handle))


def _uuid(nvml: Any, handle: Any) -> str:
    return _text(nvml.nvmlDeviceGetUUID(handle))


def _text(answer: str | bytes) -> str:
    # Older bindings give bytes.
    return answer.decode() if isinstance(answer, bytes) else answer


def _total(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)

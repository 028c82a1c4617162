"""Which of a node's GPUs a process computes on: ``CUDA_VISIBLE_DEVICES`` as CUDA reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class MigSlice:
    """A part of a GPU that MIG has set apart.

    Attributes
    ----------
    name
        As its driver calls it, the slice's size included.
    uuid
        ``MIG-`` and a UUID, or ``MIG-GPU-UUID/GI/CI`` with drivers before 470.
    total
        Its memory in bytes.
    """

    name: str
    uuid: str
    total: int


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML lists it.

    Attributes
    ----------
    name
        As its driver calls it: ``NVIDIA H200``, …
    uuid
        ``GPU-`` and a UUID.
    total
        Its memory in bytes; 0 if it is cut by MIG.
    mig
        Its slices. None: MIG is off. Without any slice, nothing can run on it.
    """

    name: str
    uuid: str
    total: int
    mig: tuple[MigSlice, ...] | None = None


def visible_gpus(gpus: Sequence[Gpu], variable: str | None) -> list[Gpu | MigSlice]:
    """List what CUDA shows to a process, in its order.

    Devices are named by index, by UUID or by a beginning of one that is unique; a MIG slice by its UUID
    only. A name that fits nothing hides itself and all behind it, as in CUDA. Indices count
    in NVML's order, which is CUDA's under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.

    Parameters
    ----------
    gpus
        All GPUs of the node, in NVML's order.
    variable
        The value of ``CUDA_VISIBLE_DEVICES``. None: it is not set.
    """
    if variable is None:
        return [shown for gpu in gpus for shown in _shown(gpu)]
    chosen: list[Gpu | MigSlice] = []
    for name in variable.split(","):
        device = _named(gpus, name.strip())
        if device is None:
            break
        chosen.append(device)
    return chosen


def _shown(gpu: Gpu) -> list[Gpu | MigSlice]:
    # Of a GPU cut by MIG, a process sees one slice.
    return [gpu] if gpu.mig is None else list(gpu.mig[:1])


def _named(gpus: Sequence[Gpu], name: str) -> Gpu | MigSlice | None:
    if name.isascii() and name.isdigit():
        index = int(name)
        return next(iter(_shown(gpus[index])), None) if index < len(gpus) else None
    known: list[Gpu | MigSlice]
    if name.startswith("MIG-"):
        known = [part for gpu in gpus for part in gpu.mig or ()]
    elif name.startswith("GPU-"):
        known = list(gpus)
    else:
        return None
    fitting = [device for device in known if device.uuid.lower().startswith(name.lower())]
    if len(fitting) != 1:
        return None
    device = fitting[0]
    return next(iter(_shown(device)), None) if isinstance(device, Gpu) else device

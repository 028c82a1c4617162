"""Which GPUs a process sees, and how much memory they have, as a stand-in for NVML tells it."""

import pytest
from amela_common.batching.budget import start_items
from amela_common.batching.nvml import read_gpus
from amela_common.batching.visible_gpus import visible_gpus

from .fake_nvml import A100_40, A100_80, A100_MIG, H200, MIB, SLICES, V100_32, FakeGpu, FakeNvml

LARGE, SMALL = (part.uuid for part in SLICES if part is not None)


def seen(nvml: FakeNvml, variable: str | None) -> list[str]:
    return [device.uuid for device in visible_gpus(read_gpus(nvml), variable)]


def test_memory_and_slices_are_read() -> None:
    nvml = FakeNvml(A100_80, A100_MIG, V100_32)
    whole, cut, old = read_gpus(nvml)

    assert (whole.total / MIB, whole.mig) == (81920, None)
    assert cut.mig is not None
    assert [(part.uuid, part.total / MIB) for part in cut.mig] == [(LARGE, 40192), (SMALL, 19968)]
    assert old.mig is None
    assert nvml.open == 0


def test_uuids_of_older_bindings_are_bytes() -> None:
    assert read_gpus(FakeNvml(H200, uuids_as_bytes=True))[0].uuid == H200.uuid


def test_a_node_without_a_driver_has_no_gpus() -> None:
    assert read_gpus(FakeNvml(driver=False)) == []


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, [A100_80, A100_40, V100_32]),
        ("0", [A100_80]),
        ("2,0", [V100_32, A100_80]),
        (" 1 , 2 ", [A100_40, V100_32]),
        (A100_40.uuid, [A100_40]),
        ("GPU-5c7a", [A100_80]),
        (f"{V100_32.uuid},0", [V100_32, A100_80]),
        ("gpu-5c7a", []),
        ("GPU-5c7", []),
        ("", []),
        ("-1", []),
        ("0,-1,1", [A100_80]),
        ("1,9,0", [A100_40]),
        ("NoDevFiles", []),
        ("²", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(variable: str | None, expected: list[FakeGpu]) -> None:
    shown = seen(FakeNvml(A100_80, A100_40, V100_32), variable)

    assert shown == [gpu.uuid for gpu in expected]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, LARGE),
        ("0", LARGE),
        (A100_MIG.uuid, LARGE),
        (SMALL, SMALL),
        (SMALL[:12], SMALL),
    ],
)
def test_of_a_gpu_cut_by_mig_a_process_sees_one_slice(variable: str | None, expected: str) -> None:
    assert seen(FakeNvml(A100_MIG), variable) == [expected]


def test_a_gpu_cut_by_mig_without_slices_is_not_seen() -> None:
    assert seen(FakeNvml(A100_MIG._replace(slices=(None, None))), "0") == []


def test_the_slices_memory_counts_not_the_gpus() -> None:
    (part,) = visible_gpus(read_gpus(FakeNvml(A100_MIG)), SMALL)

    assert start_items(part.total / MIB) == 4

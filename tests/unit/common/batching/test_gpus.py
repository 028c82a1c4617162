"""Which GPUs a process sees, and how much memory they have, by recorded answers of NVML's."""

import pytest
from amela_common.batching.budget import start_items
from amela_common.batching.nvml import described, read_gpus, visible_gpu
from amela_common.batching.visible_gpus import visible_gpus

from .fake_nvml import FakeNvml
from .recorded_gpus import (
    A100_NODE,
    H100,
    H200_NODE,
    MIB,
    NEW_A100_40,
    OLD_A100,
    V100_PAIR,
    RecordedGpu,
    RecordedSlice,
)

H200_CUT, *H200S = H200_NODE
H200_SLICE, SMALL_SLICE = (H200_CUT.slices or ())[:2]
A100_CUT, A100_80, *_ = A100_NODE
A100_SLICE = (A100_CUT.slices or ())[0]
OLD_SLICE = (OLD_A100.slices or ())[0]


def seen(nvml: FakeNvml, variable: str | None) -> list[str]:
    return [device.uuid for device in visible_gpus(read_gpus(nvml), variable)]


def test_memory_and_slices_are_read() -> None:
    nvml = FakeNvml(*A100_NODE, *V100_PAIR)
    cut, whole, *_, old = read_gpus(nvml)

    assert (whole.total / MIB, whole.mig) == (81920, None)
    assert cut.mig is not None
    assert [(part.name, part.uuid, part.total) for part in cut.mig] == [*map(tuple, A100_CUT.slices or ())]
    assert (old.name, old.total / MIB, old.mig) == ("Tesla V100-SXM2-32GB", 32768, None)
    assert nvml.open == 0


def test_of_a_cut_gpu_whose_own_memory_is_a_secret_the_slices_are_known_all_the_same() -> None:
    nvml = FakeNvml(*H200_NODE, slices_only=True)
    cut, whole, *_ = read_gpus(nvml)

    assert cut.mig is not None
    assert [part.total / MIB for part in cut.mig] == [33280, 16384, 16384, 16384, 16384, 16384]
    assert whole.total / MIB == 143771
    assert seen(nvml, None)[:2] == [H200_SLICE.uuid, H200S[0].uuid]


def test_texts_of_older_bindings_are_bytes() -> None:
    old, new = read_gpus(FakeNvml(OLD_A100, H100, texts_as_bytes=True))

    assert (new.name, new.uuid) == (H100.name, H100.uuid)
    assert old.mig is not None
    assert old.mig[0].uuid == OLD_SLICE.uuid


def test_of_a_node_with_a_lost_gpu_nothing_is_told() -> None:
    class FakeNvmlOfALostGpu(FakeNvml):
        def nvmlDeviceGetUUID(self, handle: object) -> object:  # noqa: N802
            raise self.NVMLError("GPU is lost")

    nvml = FakeNvmlOfALostGpu(H100)

    assert read_gpus(nvml) == []
    assert nvml.open == 0


def test_a_node_without_a_driver_has_no_gpus() -> None:
    assert read_gpus(FakeNvml(driver=False)) == []


@pytest.mark.parametrize(
    ("device", "items"),
    [
        (H200S[0], 16),
        (A100_80, 16),
        (H100, 16),
        (NEW_A100_40, 8),
        (OLD_A100, 8),
        (V100_PAIR[0], 4),
        (H200_SLICE, 4),
        (SMALL_SLICE, 4),
        (A100_SLICE, 4),
        (OLD_SLICE, 4),
    ],
)
def test_the_labs_table_has_a_start_for_every_memory_that_was_reported(
    device: RecordedGpu | RecordedSlice, items: int
) -> None:
    assert start_items(device.total / MIB) == items


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, [H200_SLICE, *H200S]),
        ("1", [H200S[0]]),
        ("2,0", [H200S[1], H200_SLICE]),
        (" 1 , 2 ", [H200S[0], H200S[1]]),
        (H200S[1].uuid, [H200S[1]]),
        ("GPU-af5e", [H200S[0]]),
        (f"{H200S[6].uuid},1", [H200S[6], H200S[0]]),
        ("gpu-af5e", []),
        ("GPU-", []),
        ("", []),
        ("-1", []),
        ("1,-1,2", [H200S[0]]),
        ("2,9,1", [H200S[1]]),
        ("NoDevFiles", []),
        ("²", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    variable: str | None, expected: list[RecordedGpu | RecordedSlice]
) -> None:
    assert seen(FakeNvml(*H200_NODE), variable) == [device.uuid for device in expected]


def test_a_beginning_that_fits_two_gpus_names_none() -> None:
    assert seen(FakeNvml(*A100_NODE), "GPU-5") == []
    assert seen(FakeNvml(*A100_NODE), "GPU-5e") == [A100_NODE[2].uuid]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, [H200_SLICE]),
        ("0", [H200_SLICE]),
        (H200_CUT.uuid, [H200_SLICE]),
        (SMALL_SLICE.uuid, [SMALL_SLICE]),
        (SMALL_SLICE.uuid[:12], [SMALL_SLICE]),
        ("MIG-b", []),
    ],
)
def test_of_a_gpu_cut_by_mig_a_process_sees_one_slice(
    variable: str | None, expected: list[RecordedSlice]
) -> None:
    assert seen(FakeNvml(H200_CUT), variable) == [device.uuid for device in expected]


@pytest.mark.parametrize(
    ("place", "expected"), [("/7/0", ["/7/0"]), ("/14/0", ["/14/0"]), ("/1", []), ("/10/0", [])]
)
def test_slices_of_older_drivers_are_named_by_their_gpu_and_place(place: str, expected: list[str]) -> None:
    shown = seen(FakeNvml(OLD_A100), f"MIG-{OLD_A100.uuid}{place}")

    assert shown == [f"MIG-{OLD_A100.uuid}{each}" for each in expected]


def test_a_gpu_cut_by_mig_without_slices_is_not_seen() -> None:
    assert seen(FakeNvml(H200_CUT._replace(slices=())), "0") == []


@pytest.mark.parametrize(
    ("variable", "position", "expected"),
    [
        ("2,1", 0, H200S[1]),
        ("2,1", 1, H200S[0]),
        (H200S[1].uuid, 0, H200S[1]),
        ("1", 1, None),
        ("", 0, None),
        (SMALL_SLICE.uuid, 0, SMALL_SLICE),
    ],
)
def test_a_process_finds_the_device_that_it_computes_on(
    variable: str,
    position: int,
    expected: RecordedGpu | RecordedSlice | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    found = visible_gpu(position, FakeNvml(*H200_NODE))

    assert (found and (found.uuid, found.total)) == (expected and (expected.uuid, expected.total))


def test_a_gpu_is_described_with_the_memory_that_the_server_may_take() -> None:
    (gpu,) = read_gpus(FakeNvml(H200S[0]))
    whole, part = described(gpu), described(gpu, 35_000 * MIB)

    assert (whole.name, whole.uuid, whole.memory_mib) == ("NVIDIA H200", H200S[0].uuid, 143771)
    assert part.memory_mib == 35_000
    assert described(gpu, 1 << 50).memory_mib == 143771


def test_a_slice_is_described_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", A100_SLICE.uuid)
    part = visible_gpu(0, FakeNvml(*A100_NODE))

    assert part is not None
    assert (described(part).uuid, described(part).memory_mib) == (A100_SLICE.uuid, 19968)
    assert described(part).name == "NVIDIA A100-SXM4-80GB MIG 1g.20gb"


def test_memory_that_is_no_whole_number_of_mib_is_described_by_the_whole_ones() -> None:
    (gpu,) = read_gpus(FakeNvml(OLD_A100._replace(slices=None)))

    assert described(gpu).memory_mib == 40536

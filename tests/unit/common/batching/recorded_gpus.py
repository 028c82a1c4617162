"""What NVML told of real GPUs, from public records: figures and identifiers only.

- ``A100_NODE``: driver 535.54.03, as reported by nvidia-smi in influxdata/telegraf: UUIDs in issue 5812,
  memory in plugins/inputs/nvidia_smi/testdata/a100-sxm4-v12.xml, which is of the same machine.
- ``H200_NODE``: driver 570.86.15, as reported by nvidia-smi in the notes on MIG with Docker at
  johng.cn/ai/gpu-mig-docker-specify-subcard. That record hides the memory of whole GPUs; 143771 MiB is what
  nvidia-smi tables of H200s show throughout, with no one source to name.
- ``OLD_A100``: driver 460.73.01, as reported by nvidia-smi and GPU feature discovery in NVIDIA's
  documentation of the GPU operator, chapter "GPU Operator with MIG": UUIDs of slices had another form before
  driver 470. Its bytes are NVML's own for an A100-SXM4-40GB, from XuehaiPan/nvitop issue 5.
- ``V100_PAIR``: UUIDs as reported by nvidia-smi in rapidsai/dask-cuda's documentation; memory as in
  akash-network/provider-configs pull request 90, of another V100 with 32 GB.
- ``H100``: UUID as reported by nvidia-smi in NVIDIA's MIG user guide, "MIG Device Names"; 81559 MiB is what
  nvidia-smi tables of H100s with 80 GB show throughout, with no one source to name either.
- ``NEW_A100_40``: as reported by nvidia-smi in bottlerocket-os/bottlerocket-core-kit pull request 834, driver
  580.126.09. Its UUID is not in that record: this one is GPU 1's in NVIDIA's MIG user guide.

nvidia-smi shows whole MiB: but for ``OLD_A100``, the bytes are these MiB. A slice's name is made of the two
that ``nvidia-smi -L`` has for it and its GPU. No record was found of how an A100 or H100 with slices of
35,000 to 70,000 MiB answers.
"""

from typing import NamedTuple

MIB = 1 << 20


class RecordedSlice(NamedTuple):
    """A MIG slice: its memory in bytes."""

    name: str
    uuid: str
    total: int


class RecordedGpu(NamedTuple):
    """A GPU: its memory in bytes; no slices if MIG is off, and no MIG mode at all before Ampere."""

    name: str
    uuid: str
    total: int
    slices: tuple[RecordedSlice, ...] | None = None
    knows_mig: bool = True


def _cut(name: str, uuid: str, total: int, *slices: tuple[str, int, str]) -> RecordedGpu:
    parts = (RecordedSlice(f"{name} MIG {profile}", part, mib * MIB) for profile, mib, part in slices)
    return RecordedGpu(name, uuid, total, tuple(parts))


_A100_80 = "NVIDIA A100-SXM4-80GB"
A100_NODE = (
    _cut(
        _A100_80,
        "GPU-513536b6-7d19-9063-b049-1e69664bb298",
        81920 * MIB,
        ("1g.20gb", 19968, "MIG-ce861fb0-a248-58ce-a9a8-f9adbc22a66a"),
        ("1g.20gb", 19968, "MIG-a45882f0-9215-5733-a0c1-49286ab31cb5"),
        ("1g.20gb", 19968, "MIG-f00d722c-f4e1-52c9-aa31-750441ae1bfe"),
        ("1g.20gb", 19968, "MIG-930574a9-d43a-5d2b-95da-3e68384c8d6b"),
    ),
    RecordedGpu(_A100_80, "GPU-d8594bd4-0fc3-8595-e355-7c98138f3b95", 81920 * MIB),
    RecordedGpu(_A100_80, "GPU-5e375e7e-b41f-155b-dcdc-534524c356fc", 81920 * MIB),
    RecordedGpu(_A100_80, "GPU-69ec2344-ebac-b028-f88f-452abb3d7f11", 81920 * MIB),
)
H200_NODE = (
    _cut(
        "NVIDIA H200",
        "GPU-b2acda36-db78-a209-f9ef-d07b4336c449",
        143771 * MIB,
        ("2g.35gb", 33280, "MIG-b05c0034-4d0e-5d3c-a25c-e6795d1779df"),
        ("1g.18gb", 16384, "MIG-be041b89-b751-5c96-84aa-85315833c669"),
        ("1g.18gb", 16384, "MIG-605bf89c-7be6-586e-a729-a2369e833b3e"),
        ("1g.18gb", 16384, "MIG-02b4e55e-29a1-5d28-b9ee-8e9445e355f0"),
        ("1g.18gb", 16384, "MIG-dc7ad5d3-20d8-5dcb-adf7-fb22c2459352"),
        ("1g.18gb", 16384, "MIG-148a1759-0dd2-59c6-9605-26206ae0e79b"),
    ),
    *(
        RecordedGpu("NVIDIA H200", uuid, 143771 * MIB)
        for uuid in (
            "GPU-af5e38ec-d1d6-1c20-67c8-c8001109e6d8",
            "GPU-da9f3cba-5f87-5830-26d6-b3f5a545ae34",
            "GPU-f2c60745-001d-1948-52bb-c9616b34da97",
            "GPU-7b8f55d1-e1d9-30a2-590b-3eff9b86ae05",
            "GPU-a73089ba-c8f9-f9dc-bd1e-9da99cb2104b",
            "GPU-4e19f7d9-e5d6-1223-e9d2-983f01ef45f6",
            "GPU-5b73e21c-9b5d-4156-8b8d-aed96f9f8d86",
        )
    ),
)
_OLD_UUID = "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
OLD_A100 = _cut(
    "A100-SXM4-40GB",
    _OLD_UUID,
    42505273344,
    *(("1g.5gb", 4864, f"MIG-{_OLD_UUID}/{instance}/0") for instance in (7, 8, 9, 11, 12, 13, 14)),
)
V100_PAIR = (
    RecordedGpu(
        "Tesla V100-SXM2-32GB", "GPU-dae76d0e-3414-958a-8f3e-fc6682b36f31", 32768 * MIB, knows_mig=False
    ),
    RecordedGpu(
        "Tesla V100-SXM2-32GB", "GPU-60f2c95a-c564-a078-2a14-b4ff488806ca", 32768 * MIB, knows_mig=False
    ),
)
H100 = RecordedGpu("NVIDIA H100 80GB HBM3", "GPU-c08d91cb-e324-655c-71ba-7570956445bc", 81559 * MIB)
NEW_A100_40 = RecordedGpu("NVIDIA A100-SXM4-40GB", "GPU-0aa11ebd-627f-af3f-1a0d-4e1fd92fd7b0", 40960 * MIB)

"""What PyTorch's errors mean, by errors that PyTorch itself raises where this machine can have them."""

import pytest
import torch
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError

GIB = 1 << 30


def error_of(work: object) -> BaseException:
    assert callable(work)
    with pytest.raises(BaseException) as raised:
        work()
    return raised.value


def test_memory_that_a_cpu_cannot_have_is_out_of_memory() -> None:
    error = error_of(lambda: torch.empty(1 << 50))

    assert TorchDevice("cpu").is_out_of_memory(error)
    assert not TorchDevice("cpu").is_broken(error)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_what_says_that_memory_ran_out_is_never_a_lost_device(error: BaseException) -> None:
    assert TorchDevice("cpu").is_out_of_memory(error)
    assert not TorchDevice("cpu").is_broken(error)


@pytest.mark.parametrize(
    "work", [lambda: torch.ones(2) @ torch.ones(3), lambda: torch.ones(1)[5], lambda: 1 / 0]
)
def test_faults_of_one_batch_are_neither(work: object) -> None:
    error = error_of(work)

    assert not TorchDevice("cpu").is_out_of_memory(error)
    assert not TorchDevice("cpu").is_broken(error)


@pytest.mark.parametrize(
    ("message", "broken"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`", True),
        ("CUDA error: an illegal memory access was encountered", True),
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_a_library_that_gets_no_memory_has_not_lost_the_gpu(
    kind: type[RuntimeError], message: str, broken: bool
) -> None:
    device = TorchDevice("cpu")
    # The meaning of a GPU's errors, on machines that have none.
    device.is_cuda = True

    assert device.is_broken(kind(message)) == (broken or False)
    assert device.is_out_of_memory(kind(message)) == (not broken)


def test_an_accelerators_error_means_that_the_process_must_go() -> None:
    assert TorchDevice("cpu").is_broken(torch.AcceleratorError("an illegal memory access was encountered"))


@pytest.mark.parametrize(("name", "dtype"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_a_cpu_computes_in_float32_unless_told_otherwise(name: str, dtype: torch.dtype) -> None:
    assert TorchDevice("cpu").precision(name) is dtype


@pytest.mark.parametrize("name", ["fp16", "int8", ""])
def test_a_precision_that_a_cpu_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--precision"):
        TorchDevice("cpu").precision(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta", "mps:0"])
def test_a_device_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        TorchDevice(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_what_to_look_at() -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        TorchDevice("cuda:0")
    assert TorchDevice("auto").name == "cpu"


def test_a_cpu_has_no_memory_to_share_and_is_no_gpu() -> None:
    device = TorchDevice("cpu")
    device.keep_to(1024)
    error = error_of(lambda: torch.empty(1 << 50))

    assert device.describe() is None
    assert device.free_memory() is None
    with pytest.raises(type(error)), device.room_for("a model"):
        raise error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_server_that_shares_a_gpu_keeps_to_its_part() -> None:
    device = TorchDevice("cuda:0")
    whole = device.describe()
    device.keep_to(2048)
    try:
        part, free = device.describe(), device.free_memory()
        assert whole is not None and part is not None and free is not None
        assert (part.uuid, part.memory_mib) == (whole.uuid, 2048)
        assert GIB < free < 2 * GIB
        torch.empty(GIB, dtype=torch.uint8, device=device.torch)
        with pytest.raises(ConfigError, match="--gpu-memory-mib 2048: a model"), device.room_for("a model"):
            torch.empty(2 * GIB, dtype=torch.uint8, device=device.torch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device.torch)

"""Triton's face of `amela_asr.engines.triton_model`, for its python backend.

Tensors cross by DLPack, not as arrays: the backend's stubs hand out and take empty ones where its NumPy
and the interpreter's are of different major versions, without an error.
"""

import locale
import os
from typing import Any

import torch
import triton_python_backend_utils as backend
from amela_asr.engines.triton_messages import ANSWER, AUDIO, OPTIONS, encode_failure
from amela_asr.engines.triton_model import Item, TritonModel
from amela_common.batching.recovery import BrokenDeviceError
from amela_common.errors import ConfigError, RequestError


class TritonPythonModel:
    """One instance of the model, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that the environment names."""
        # The stub leaves its interpreter in the C locale, and PyTorch reads source files in UTF-8 of its own.
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        if args["model_instance_kind"] == "GPU":
            os.environ.setdefault("AMELA_DEVICE", f"cuda:{args['model_instance_device_id']}")
        try:
            self._model = TritonModel.from_environment()
        except ConfigError as error:
            raise backend.TritonModelException(str(error)) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests of any lengths; each fails alone."""
        items = [Item(_array(request, AUDIO), _array(request, OPTIONS).tobytes()) for request in requests]
        try:
            answers = self._model.answer(items)
        except BrokenDeviceError as error:
            # The device answers nothing in this process any more. Triton then reports its stub as unhealthy.
            print(f"amela_asr: the device is lost: {error}", flush=True)
            os._exit(1)
        return [_response(answer) for answer in answers]


def _array(request: Any, name: str) -> Any:
    tensor = backend.get_input_tensor_by_name(request, name).to_dlpack()
    return torch.from_dlpack(tensor).cpu().reshape(-1).numpy().copy()


def _response(answer: bytes | RequestError) -> Any:
    if isinstance(answer, RequestError):
        # The backend's classes are there only once this module is loaded.
        error = backend.TritonError
        code = {"INTERNAL": error.INTERNAL, "OUT_OF_MEMORY": error.UNAVAILABLE}.get(
            answer.reason, error.INVALID_ARG
        )
        return backend.InferenceResponse(error=error(encode_failure(answer), code))
    content = torch.frombuffer(bytearray(answer), dtype=torch.uint8).reshape(1, -1)
    return backend.InferenceResponse([backend.Tensor.from_dlpack(ANSWER, content)])

"""Any model that a Triton Inference Server runs with this package's model repository."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from amela.common.v1.server_pb2 import Gpu
from amela_common.audio import Clip
from amela_common.errors import ConfigError, RequestError
from amela_common.server import Runtime
from tritonclient.utils import InferenceServerException

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines.recognizer import SAMPLE_RATE
from amela_asr.engines.triton_messages import (
    ANSWER,
    AUDIO,
    DESCRIBE,
    OPTIONS,
    Description,
    decode_description,
    decode_failure,
    decode_recognition,
    encode_options,
)

log = logging.getLogger(__name__)

MODEL = "amela_asr"
# Triton gathers up to so many clips in a batch, and as many again meanwhile.
_CONCURRENCY = 128
# A server that takes longer than this for some seconds of speech hangs.
_TIMEOUT_SECONDS = 300.0
_CANARY_TIMEOUT_SECONDS = 30.0
_WATCH_SECONDS = 5.0
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A Triton that is started anew is found soon.
    ("grpc.max_reconnect_backoff_ms", 2000),
]
# What gRPC says of a connection that TLS prevents, and what to do.
_CURES = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of the authority in --triton-ca: take the right one",
    "Hostname Verification": "its certificate is for another host: use the name in it in --triton-url",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: start it with TLS, or leave --triton-ca out",
}
_MAYBE_TLS = {"Socket closed": "if it speaks TLS, name its certificate's authority with --triton-ca"}


class TritonEngine:
    """A client of Triton, which gathers batches itself.

    Triton says that it is ready also when a model's process has died: what tells is an inference. One
    is made every few seconds; while it fails the server is out of service.

    Parameters
    ----------
    url
        ``HOST:PORT`` of its gRPC service.
    model
        Name in its repository. None: this package's.
    certificate_authority
        What its certificate must come from. None: no TLS.

    Raises
    ------
    ConfigError
        If the certificate authority cannot be read.
    """

    name = "triton"
    sample_rate = SAMPLE_RATE
    concurrency = _CONCURRENCY
    # Both are Triton's own affair.
    gpu: Gpu | None = None
    batch_seconds = 0.0

    def __init__(
        self, url: str, model: str | None, certificate_authority: Path | None, runtime: Runtime
    ) -> None:
        if certificate_authority is not None:
            _check_authority(certificate_authority)
        self._url = url
        self._triton_model = self.model = model or MODEL
        self._runtime = runtime
        self.device = f"triton {url}"
        self.fingerprint = ""
        self.warnings: tuple[str, ...] = ()
        self.capabilities = Capabilities()
        # Known, and held against the settings, once Triton has been asked.
        self.max_piece_seconds = float("inf")
        self._certificate_authority = certificate_authority
        self._client: Any = None
        self._watch: asyncio.Task[None] | None = None
        self._doubt = asyncio.Event()
        self._away: str | None = None

    async def load(self) -> None:
        """Ask what runs there, and recognise a canary."""
        self._client = triton.InferenceServerClient(
            self._url,
            ssl=self._certificate_authority is not None,
            root_certificates=self._certificate_authority and str(self._certificate_authority),
            channel_args=_CHANNEL_OPTIONS,
        )
        try:
            description = await self._describe()
            await self._infer(_canary(), encode_options(Options()), _CANARY_TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise ConfigError(self._why(error)) from error
        self.model = description.model
        self.device = f"{description.device} (triton {self._url})"
        self.fingerprint = description.fingerprint
        self.warnings = description.warnings
        self.capabilities = description.capabilities
        self.max_piece_seconds = description.max_piece_seconds
        self._watch = asyncio.create_task(self._watch_forever(), name="triton")

    async def recognize(self, clip: Clip, options: Options, caller: Hashable) -> Recognition:
        """Recognise one clip; Triton answers callers in the order in which they come."""
        if self._away is not None:
            raise RequestError("ENGINE_LOST", f"{self._away}: ask another server, or this one later")
        try:
            answer = await self._infer(clip.samples, encode_options(options), _TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise self._failure(error) from None
        return decode_recognition(answer)

    async def close(self) -> None:
        """Hang up."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._client is not None:
            await self._client.close()

    async def _describe(self) -> Description:
        answer = await self._infer(np.zeros(1, np.float32), DESCRIBE, _CANARY_TIMEOUT_SECONDS)
        try:
            return decode_description(answer)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--triton-url {self._url}: its model {self._triton_model} is not of this version of"
                " amela-asr; start it with this version's model repository"
            ) from error

    async def _infer(self, samples: "np.ndarray[Any, Any]", options: bytes, seconds: float) -> bytes:
        inputs = [
            _input(AUDIO, np.asarray(samples, np.float32), "FP32"),
            _input(OPTIONS, np.frombuffer(options, np.uint8), "UINT8"),
        ]
        result = await self._client.infer(self._triton_model, inputs, client_timeout=seconds)
        return bytes(result.as_numpy(ANSWER).tobytes())

    def _failure(self, error: InferenceServerException) -> RequestError:
        said = decode_failure(str(error.message()))
        if said is not None:
            return said
        status, message = str(error.status()), str(error.message())
        if "Exceeds maximum queue size" in message:
            return RequestError("QUEUE_FULL", f"Triton's queue is full: {message}", retry_after=1.0)
        # Whatever else it is: the canary finds out whether it goes on.
        self._doubt.set()
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return RequestError("WORKER_LOST", f"Triton gave no answer within {_TIMEOUT_SECONDS:g} s")
        if _is_away(status, message):
            return RequestError("ENGINE_LOST", self._why(error))
        return RequestError("INTERNAL", f"Triton failed on this piece: {message}")

    def _why(self, error: InferenceServerException) -> str:
        status, message = str(error.status()).removeprefix("StatusCode."), str(error.message())
        if status == "NOT_FOUND":
            return f"Triton at {self._url} has no model {self._triton_model} ({message})"
        known = _MAYBE_TLS if self._certificate_authority is None else _CURES
        cures = "".join(f"; {cure}" for sign, cure in known.items() if sign in message)
        return f"Triton at {self._url} does not answer ({status}: {message}){cures}"

    async def _watch_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._doubt.wait()
            self._doubt.clear()
            try:
                description = await self._describe()
                await self._infer(_canary(), encode_options(Options()), _CANARY_TIMEOUT_SECONDS)
            except InferenceServerException as error:
                self._leave(self._why(error))
            except ConfigError as error:
                # A repository of another version may be there only until the right one is back.
                self._leave(str(error))
            else:
                if description.fingerprint != self.fingerprint:
                    self._runtime.fail(
                        f"Triton runs another model now: {description.model} with fingerprint"
                        f" {description.fingerprint}, not {self.fingerprint}"
                    )
                    return
                self._return()

    def _leave(self, why: str) -> None:
        if self._away is None:
            self._runtime.suspend(why)
        self._away = why

    def _return(self) -> None:
        if self._away is not None:
            self._away = None
            self._runtime.resume()


def _check_authority(path: Path) -> None:
    # gRPC itself says this on standard error alone, for each call.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"--triton-ca {path}: there is no certificate in it; give a PEM file") from error
    except OSError as error:
        raise ConfigError(f"--triton-ca {path}: {error.strerror}") from error


def _input(name: str, values: "np.ndarray[Any, Any]", kind: str) -> Any:
    tensor = triton.InferInput(name, (1, len(values)), kind)
    tensor.set_data_from_numpy(values[None])
    return tensor


def _canary() -> "np.ndarray[Any, Any]":
    return np.random.default_rng(0).normal(0, 0.05, SAMPLE_RATE // 2).astype(np.float32)


def _is_away(status: str, message: str) -> bool:
    return status in {"StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"} or "Stub process" in message

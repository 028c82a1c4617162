"""The services that the client knows, and the call of each that does its work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from amela.asr.v1 import asr_pb2
from amela.common.v1.server_pb2 import ServerInfo
from amela.vad.v1 import vad_pb2

from amela_client.results import Transcript, VoiceActivity

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Service:
    """One of AMELA's services."""

    name: str
    """Full gRPC name."""
    command: str
    """Program that serves it."""
    read_info: Callable[[bytes], ServerInfo]
    """Reads what every service's GetInfo answers first."""


@dataclass(frozen=True)
class Method(Generic[ResultT]):
    """A unary call of a service."""

    service: Service
    name: str
    read: Callable[[bytes], ResultT]
    """Makes the result from the serialised response."""


ASR = Service(
    "amela.asr.v1.AsrService", "amela-asr", lambda data: asr_pb2.GetInfoResponse.FromString(data).server
)
VAD = Service(
    "amela.vad.v1.VadService", "amela-vad", lambda data: vad_pb2.GetInfoResponse.FromString(data).server
)

TRANSCRIBE = Method(
    ASR,
    "Transcribe",
    lambda data: Transcript.from_proto(asr_pb2.TranscribeResponse.FromString(data)),
)
DETECT = Method(VAD, "Detect", lambda data: VoiceActivity.from_proto(vad_pb2.DetectResponse.FromString(data)))
SERVICES: dict[str, tuple[Service, Method[Any]]] = {
    method.service.name: (method.service, method) for method in (DETECT, TRANSCRIBE)
}
"""By full gRPC name."""

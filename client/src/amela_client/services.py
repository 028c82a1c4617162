"""The services that the client knows, and their calls."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio
from amela.asr.v1 import asr_pb2
from amela.common.v1.server_pb2 import ServerInfo
from amela.sts.v1 import sts_pb2
from amela.vad.v1 import vad_pb2
from google.protobuf.message import DecodeError, Message

from amela_client.results import Transcript, VoiceActivity
from amela_client.synthesized import SynthesizedAudio
from amela_client.units import Units

Call = Callable[..., Awaitable[Any]]
"""Takes a request, ``timeout`` and ``metadata``; gives the result, None if the answer cannot be read."""


class Method(Protocol):
    """A call of a service that takes one message."""

    @property
    def name(self) -> str:
        """As in the contract."""
        ...

    @property
    def request(self) -> type[Message]:
        """What it takes; no two methods take the same."""
        ...

    def bind(self, channel: grpc.aio.Channel, service: str) -> Call:
        """Make the call on a channel."""
        ...


@dataclass(frozen=True)
class UnaryMethod:
    """A call that answers with one message."""

    name: str
    request: type[Message]
    read: Callable[[bytes], Any]
    """Makes the result of the serialised response."""

    def bind(self, channel: grpc.aio.Channel, service: str) -> Call:
        """Make the call on a channel."""
        return channel.unary_unary(
            f"/{service}/{self.name}", request_serializer=serialise, response_deserializer=self.read
        )


@dataclass(frozen=True)
class PartsMethod:
    """A call that answers in parts."""

    name: str
    request: type[Message]
    read: Callable[[bytes], Any]
    """Reads a serialised part."""
    collect: Callable[[AsyncIterator[Any]], Awaitable[Any]]
    """Makes the result of the parts; raises ValueError if they are not all there."""

    def bind(self, channel: grpc.aio.Channel, service: str) -> Call:
        """Make the call on a channel."""
        start: grpc.aio.UnaryStreamMultiCallable[Message, bytes] = channel.unary_stream(
            f"/{service}/{self.name}", request_serializer=serialise
        )

        async def call(request: Message, **options: Any) -> Any:
            answer = start(request, **options)
            try:
                return await self.collect(self.read(part) async for part in answer)
            except (DecodeError, ValueError):
                return None
            finally:
                answer.cancel()

        return call


@dataclass(frozen=True)
class Service:
    """One of AMELA's services."""

    name: str
    """Full gRPC name."""
    command: str
    """Program that serves it."""
    read_info: Callable[[bytes], ServerInfo]
    """Reads what every service's GetInfo answers first."""
    methods: tuple[Method, ...]


def serialise(message: Message) -> bytes:
    """Return a message as it is sent."""
    return message.SerializeToString()


ASR = Service(
    "amela.asr.v1.AsrService",
    "amela-asr",
    lambda data: asr_pb2.GetInfoResponse.FromString(data).server,
    (
        UnaryMethod(
            "Transcribe",
            asr_pb2.TranscribeRequest,
            lambda data: Transcript.from_proto(asr_pb2.TranscribeResponse.FromString(data)),
        ),
    ),
)
VAD = Service(
    "amela.vad.v1.VadService",
    "amela-vad",
    lambda data: vad_pb2.GetInfoResponse.FromString(data).server,
    (
        UnaryMethod(
            "Detect",
            vad_pb2.DetectRequest,
            lambda data: VoiceActivity.from_proto(vad_pb2.DetectResponse.FromString(data)),
        ),
    ),
)
STS = Service(
    "amela.sts.v1.StsService",
    "amela-sts",
    lambda data: sts_pb2.GetInfoResponse.FromString(data).server,
    (
        PartsMethod("Encode", sts_pb2.EncodeRequest, sts_pb2.EncodeResponse.FromString, Units.collect),
        PartsMethod(
            "Synthesize",
            sts_pb2.SynthesizeRequest,
            sts_pb2.SynthesizeResponse.FromString,
            SynthesizedAudio.collect,
        ),
        PartsMethod(
            "Resynthesize",
            sts_pb2.ResynthesizeRequest,
            sts_pb2.ResynthesizeResponse.FromString,
            SynthesizedAudio.collect,
        ),
    ),
)
SERVICES = {service.name: service for service in (VAD, ASR, STS)}
"""By full gRPC name."""

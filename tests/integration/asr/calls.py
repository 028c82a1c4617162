"""Calls of a real server as any client makes them."""

from pathlib import Path
from typing import Any

import grpc
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Caller:
    """A client of one server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.stub = asr_pb2_grpc.AsrServiceStub(server.channel())

    def info(self) -> asr_pb2.GetInfoResponse:
        response: asr_pb2.GetInfoResponse = self.stub.GetInfo(
            asr_pb2.GetInfoRequest(), metadata=self.server.metadata, timeout=30
        )
        return response

    def start(self, path: Path, timeout: float = 120, **options: Any) -> Any:
        """Begin a call; its ``result()`` is the response."""
        request = asr_pb2.TranscribeRequest(options=asr_pb2.TranscribeOptions(**options))
        request.audio.path = str(path)
        return self.stub.Transcribe.future(request, metadata=self.server.metadata, timeout=timeout)

    def transcribe(self, path: Path, **options: Any) -> asr_pb2.TranscribeResponse:
        response: asr_pb2.TranscribeResponse = self.start(path, **options).result()
        return response


def reason_of(error: grpc.RpcError) -> str:
    """Read the stable reason of a failed call."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return info.reason


def outcome(call: Any) -> str:
    """Wait for a call: its text, or its reason in brackets."""
    try:
        return str(call.result().text)
    except grpc.RpcError as error:
        return f"[{reason_of(error)}]"

"""An empty engine through the client's scheduler and journal against a bare grpc.aio unary loop.

Both sides send the same requests and get the same responses, have as many calls in flight, and use TLS.
The bare side is what one would write with grpc.aio alone. The other side is a server made of the server
shell (token, admission, metrics) and the client as a run uses it: longest first, journal on. They take
turns, and their best rounds are compared.
"""

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import grpc.aio
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from amela.common.v1.server_pb2 import Capacity, Model, ServerInfo
from amela_client.backlog import Task
from amela_client.client import AmelaClient
from amela_client.journal import Journal, RunKey
from amela_client.requests import transcribe_request
from amela_client.services import ASR
from amela_common.server import Admission, Runtime, ServerSettings, run
from amela_common.server.calls import Context
from amela_common.server.security import ServerIdentity, make_identity
from amela_common.server.settings import load_settings

CALLS = 5_000
ROUNDS = 12
CONCURRENCY = 16
IN_FLIGHT = 2 * CONCURRENCY  # What the scheduler gives to a server that works on so many.
RESPONSE = asr_pb2.TranscribeResponse(
    text="she had been forced into prudence in her youth she learned romance as she grew older",
    segments=[asr_pb2.Segment(text="she had been forced into prudence in her youth")],
    model=Model(engine="empty", name="empty", fingerprint="0" * 16, device="cpu"),
)


class BareService(asr_pb2_grpc.AsrServiceServicer):
    """A service whose engine has nothing to do."""

    name = ASR.name

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: asr_pb2.GetInfoRequest, context: Context
    ) -> asr_pb2.GetInfoResponse:
        """Say what runs here."""
        return asr_pb2.GetInfoResponse(
            server=ServerInfo(
                model=RESPONSE.model, capacity=Capacity(concurrency=CONCURRENCY, queue=CONCURRENCY)
            )
        )

    async def Transcribe(  # noqa: N802 - the contract's name
        self, request: asr_pb2.TranscribeRequest, context: Context
    ) -> asr_pb2.TranscribeResponse:
        """Answer at once."""
        return RESPONSE


class ShellService(BareService):
    """The same as the server shell runs it."""

    def __init__(self, settings: ServerSettings, runtime: Runtime) -> None:
        self._admission = Admission(CONCURRENCY, CONCURRENCY, runtime.metrics)

    def validate(self) -> None:
        """Nothing can be wrong."""

    async def load(self) -> ServerInfo:
        """Nothing to load."""
        return ServerInfo()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the methods."""
        asr_pb2_grpc.add_AsrServiceServicer_to_server(self, server)

    async def close(self) -> None:
        """Nothing to free."""

    async def Transcribe(  # noqa: N802 - the contract's name
        self, request: asr_pb2.TranscribeRequest, context: Context
    ) -> asr_pb2.TranscribeResponse:
        """Answer as soon as there is a place."""
        async with self._admission.admit():
            return RESPONSE


def serve_shell(registry: Path) -> None:
    """Run the server of the one side, in a process of its own."""
    arguments = ["--registry", str(registry), "--host", "127.0.0.1", "--log-level", "ERROR"]
    sys.exit(run(ShellService, ServerSettings, "amela-common", "Answer at once.", arguments))


def serve_bare(identity: Pipe) -> None:
    """Run the server of the other side, in a process of its own; sends port and identity."""

    async def serve() -> None:
        made = make_identity(load_settings(ServerSettings, "", []), "bare", "127.0.0.1")
        assert made.credentials is not None
        server = grpc.aio.server()
        asr_pb2_grpc.add_AsrServiceServicer_to_server(BareService(), server)
        port = server.add_secure_port("127.0.0.1:0", made.credentials)
        await server.start()
        identity.send((port, made.certificate, made.tls_name))
        await server.wait_for_termination()

    asyncio.run(serve())


def requests() -> Iterator[asr_pb2.TranscribeRequest]:
    """Make the requests, one for each call."""
    return (transcribe_request(f"/data/recordings/speaker-{n:06}.flac") for n in range(CALLS))


async def run_bare(stub: "asr_pb2_grpc.AsrServiceAsyncStub") -> float:
    """Answer the seconds that the bare loop takes."""
    left = requests()

    async def lane() -> None:
        for request in left:
            response = await stub.Transcribe(request)
            assert response.text

    since = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - since


async def run_scheduled(client: AmelaClient, folder: Path) -> float:
    """Answer the seconds that scheduler and journal take."""
    path = folder / "journal"
    tasks = (Task(key, request, 10.0) for key, request in enumerate(requests()))
    since = time.perf_counter()
    with Journal.open(path, RunKey("bench", "asr", {})) as journal:
        async with aclosing(client.transcribe_all(tasks)) as outcomes:
            async for outcome in outcomes:
                assert outcome.response is not None, outcome.error
                journal.record(outcome.key, {"text": outcome.response.text})
        assert len(journal) == CALLS
    seconds = time.perf_counter() - since
    path.unlink()
    return seconds


async def measure(folder: Path, registry: Path, port: int, identity: ServerIdentity) -> tuple[float, float]:
    """Let the sides take turns; answer the best seconds of each."""
    credentials = grpc.ssl_channel_credentials(identity.certificate.encode())
    options = [("grpc.ssl_target_name_override", identity.tls_name)]
    bare, scheduled = [], []
    async with (
        grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel,
        AmelaClient(registry, wait=30.0) as client,
    ):
        stub: asr_pb2_grpc.AsrServiceAsyncStub = asr_pb2_grpc.AsrServiceStub(channel)
        for _ in range(ROUNDS):
            bare.append(await run_bare(stub))
            scheduled.append(await run_scheduled(client, folder))
    return min(bare), min(scheduled)


def main() -> int:
    """Print the figures and the ratio."""
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = folder / "registry"
        ours, theirs = processes.Pipe()
        servers = [
            processes.Process(target=serve_shell, args=(registry,), daemon=True),
            processes.Process(target=serve_bare, args=(theirs,), daemon=True),
        ]
        for server in servers:
            server.start()
        try:
            port, certificate, tls_name = ours.recv()
            identity = ServerIdentity(certificate, tls_name, None)
            bare, scheduled = asyncio.run(measure(folder, registry, port, identity))
        finally:
            for server in servers:
                server.terminate()
                server.join()
    print(f"{CALLS} calls, {IN_FLIGHT} in flight, TLS")
    print(f"bare grpc.aio loop:     {CALLS / bare:.0f} calls/s, {bare / CALLS * 1e6:.0f} µs each")
    print(f"scheduler and journal:  {CALLS / scheduled:.0f} calls/s, {scheduled / CALLS * 1e6:.0f} µs each")
    print(f"ratio rpc {bare / scheduled:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

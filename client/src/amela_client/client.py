"""AMELA's services as Python calls."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from amela.vad.v1.vad_pb2 import DetectStreamRequest
from google.protobuf.message import Message

from amela_client.backlog import Outcome, Task
from amela_client.channel import Connection
from amela_client.connections import Connections
from amela_client.discovery import Discovery
from amela_client.endpoint import Trust
from amela_client.requests import AudioInput, detect_request, segmentation_options, transcribe_request
from amela_client.results import Model, ServerStatus, SpeechEvent, Transcript, VoiceActivity
from amela_client.scheduler import Scheduler
from amela_client.services import DETECT, SERVICES, TRANSCRIBE, Method, ResultT, Service
from amela_client.survey import survey


class AmelaClient:
    """Calls whatever AMELA servers there are, found through a registry folder.

    ::

        async with AmelaClient() as client:
            transcript = await client.transcribe("recording.flac", words=True)
            print(transcript.text)

    Calls may be made at the same time; they are spread over the servers, and failures that another
    try can mend get one. `SyncAmelaClient` is the same without ``await``.

    Parameters
    ----------
    registry
        Registry folder. Default: ``AMELA_REGISTRY``, or ``~/.amela/registry``.
    servers
        Addresses ``HOST:PORT`` to call instead of all that the registry has.
    trust
        Certificate and token for addresses that are not in the registry.
    wait
        Seconds without any server after which a call gives up.
    mix_models
        Whether servers with different models may answer for the same service.

    Raises
    ------
    DiscoveryError
        If an address cannot be one.
    """

    def __init__(
        self,
        registry: str | os.PathLike[str] | None = None,
        servers: Sequence[str] = (),
        *,
        trust: Trust | None = None,
        wait: float = 10.0,
        mix_models: bool = False,
    ) -> None:
        self._discovery = Discovery(Path(registry) if registry is not None else None, servers, trust)
        self._wait = wait
        self._mix_models = mix_models
        self._schedulers: dict[str, Scheduler[Any]] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._schedulers.clear()
        await self._stack.aclose()

    async def transcribe(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        words: bool = False,
        confidence: bool = False,
        language: str = "",
        prompt: str = "",
        max_new_tokens: int = 0,
    ) -> Transcript:
        """Transcribe one recording of any length.

        Parameters
        ----------
        audio
            A path that the servers see as well, or the bytes of a whole encoded file (WAV, FLAC, …).
        start, duration
            Stretch to take, in seconds. Default: all of it.
        channel
            Channel to take, from 0. Default: the mean of all.
        words, confidence
            Whether to answer with words and their times, and with confidences.
        language
            BCP 47 tag. Empty: the model's own choice.
        prompt, max_new_tokens
            For models that take them. Empty and 0: the model's defaults.

        Raises
        ------
        CallError
            If no try succeeded; `CallError.reason` says why.
        NoServersError, DiscoveryError, MixedModelsError
            If there is no server to call.
        ValueError
            If an argument cannot be sent.
        """
        request = transcribe_request(
            audio,
            start=start,
            duration=duration,
            channel=channel,
            words=words,
            confidence=confidence,
            language=language,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
        )
        return await self._one(TRANSCRIBE, request, duration)

    async def detect(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        threshold: float | None = None,
        merge_gap: float | None = None,
        min_speech: float | None = None,
        padding: float | None = None,
        frame_probabilities: bool = False,
    ) -> VoiceActivity:
        """Find the speech in one recording of any length.

        Parameters
        ----------
        audio, start, duration, channel
            As for `transcribe`.
        threshold
            A frame is speech at or above this probability, 0 to 1. Default: the server's.
        merge_gap, min_speech, padding
            Seconds: pauses to bridge, speech to drop, what to add to both sides. Default: the server's.
        frame_probabilities
            Whether to answer with the probability of each frame.

        Raises
        ------
        CallError, NoServersError, DiscoveryError, MixedModelsError, ValueError
            As `transcribe` does.
        """
        request = detect_request(
            audio,
            start=start,
            duration=duration,
            channel=channel,
            threshold=threshold,
            merge_gap=merge_gap,
            min_speech=min_speech,
            padding=padding,
            frame_probabilities=frame_probabilities,
        )
        return await self._one(DETECT, request, duration)

    async def detect_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        threshold: float | None = None,
        merge_gap: float | None = None,
        min_speech: float | None = None,
        padding: float | None = None,
    ) -> AsyncGenerator[SpeechEvent, None]:
        """Find starts and ends of speech in live audio, while it comes in.

        A stream stays with one server; if that one is lost, so is the stream.

        Parameters
        ----------
        chunks
            16-bit little-endian mono samples at 16 kHz, any number of them at a time.
        threshold, merge_gap, min_speech, padding
            As for `detect`.

        Raises
        ------
        CallError, NoServersError, DiscoveryError, MixedModelsError, ValueError
            As `transcribe` does.
        """
        options = segmentation_options(threshold, merge_gap, min_speech, padding)
        fleet = (await self._scheduler(DETECT)).fleet
        await fleet.wait_for_server()
        member = min(fleet.serving, key=lambda one: one.window.in_flight / one.window.concurrency)
        failure: Exception | None = None

        async def requests() -> AsyncIterator[DetectStreamRequest]:
            nonlocal failure
            yield DetectStreamRequest(segmentation=options)
            try:
                async for chunk in chunks:
                    yield DetectStreamRequest(samples=chunk)
            except Exception as error:
                failure = error
                raise

        connection = cast(Connection[VoiceActivity], member.server)
        try:
            async with aclosing(connection.detect_stream(requests())) as responses:
                async for response in responses:
                    event = SpeechEvent.from_proto(response)
                    if event:
                        yield event
        except asyncio.CancelledError:
            # gRPC cancels a call whose requests cannot be made, and keeps to itself why.
            if failure:
                raise failure from None
            raise

    async def transcribe_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[Transcript], None]:
        """Transcribe any number of recordings on all servers at once.

        Parameters
        ----------
        tasks
            As for `Scheduler.run`: read as far as needed, so it may be a generator over millions.
            `transcribe_request` makes the requests.

        Yields
        ------
        Outcome
            Exactly one for each task, in the order in which they end.

        Raises
        ------
        NoServersError, DiscoveryError, MixedModelsError, CallError
            If there is no server to call (any more).
        """
        async with aclosing((await self._scheduler(TRANSCRIBE)).run(tasks)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def detect_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[VoiceActivity], None]:
        """Find the speech in any number of recordings on all servers at once.

        Like `transcribe_all`; `detect_request` makes the requests.
        """
        async with aclosing((await self._scheduler(DETECT)).run(tasks)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def models(self, service: Service) -> list[Model]:
        """Wait for a server of this service, and say what those there are run: one model, unless mixed.

        Raises
        ------
        NoServersError, DiscoveryError, MixedModelsError, CallError
            If there is no server to call.
        """
        fleet = (await self._scheduler(SERVICES[service.name][1])).fleet
        await fleet.wait_for_server()
        return list(map(Model.from_proto, fleet.models))

    def serving(self, service: Service) -> int:
        """Count the servers that take this client's calls now; 0 before the first call."""
        scheduler = self._schedulers.get(service.name)
        return len(scheduler.fleet.serving) if scheduler else 0

    async def servers(self) -> list[ServerStatus]:
        """Ask every server that can be found, of whatever service, how it does.

        Raises
        ------
        DiscoveryError
            If the registry cannot be used.
        """
        return await survey(self._discovery)

    async def _one(self, method: Method[ResultT], request: Message, seconds: float | None) -> ResultT:
        scheduler = await self._scheduler(method)
        async with aclosing(scheduler.run([Task(0, request, seconds or 0.0)])) as outcomes:
            outcome = await anext(outcomes)
        if outcome.error:
            raise outcome.error
        return cast(ResultT, outcome.response)

    async def _scheduler(self, method: Method[ResultT]) -> Scheduler[ResultT]:
        if not self._is_open:
            raise RuntimeError("this client is not open: use it as `async with AmelaClient() as client:`")
        name = method.service.name
        async with self._opening:
            if name not in self._schedulers:
                source = Connections(self._discovery, method)
                scheduler = Scheduler(source, mix_models=self._mix_models, patience=self._wait)
                self._schedulers[name] = await self._stack.enter_async_context(scheduler)
        return self._schedulers[name]

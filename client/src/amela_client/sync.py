"""The client for programs without an event loop."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from amela_client.backlog import Outcome, Task
from amela_client.client import AmelaClient
from amela_client.endpoint import Trust
from amela_client.requests import AudioInput, VoicePart
from amela_client.results import Model, ServerStatus, SpeechEvent, Transcript, VoiceActivity
from amela_client.services import Service
from amela_client.synthesized import SynthesizedAudio
from amela_client.units import Units

AnyT = TypeVar("AnyT")


class SyncAmelaClient:
    """`AmelaClient` in blocking form: the same calls, made on a thread of its own.

    ::

        with SyncAmelaClient() as client:
            print(client.transcribe("recording.flac").text)

    Parameters and errors are those of `AmelaClient`. Any number of threads may use one client.
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
        self._client = AmelaClient(registry, servers, trust=trust, wait=wait, mix_models=mix_models)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._live(opened),), name="amela-client", daemon=True
        )
        self._thread.start()
        opened.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None and self._thread is not None
        loop, self._loop = self._loop, None
        loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self, opened: Future[None]) -> None:
        """Hold the client open on the loop of its thread."""
        async with self._client:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            opened.set_result(None)
            await self._stop.wait()

    def transcribe(
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
        """Transcribe one recording, as `AmelaClient.transcribe` does."""
        return self._wait_for(
            self._client.transcribe(
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
        )

    def detect(
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
        """Find the speech in one recording, as `AmelaClient.detect` does."""
        return self._wait_for(
            self._client.detect(
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
        )

    def detect_stream(
        self,
        chunks: Iterable[bytes],
        *,
        threshold: float | None = None,
        merge_gap: float | None = None,
        min_speech: float | None = None,
        padding: float | None = None,
    ) -> Iterator[SpeechEvent]:
        """Find starts and ends of speech in live audio, as `AmelaClient.detect_stream` does."""
        return self._iterate(
            self._client.detect_stream(
                _from_thread(chunks),
                threshold=threshold,
                merge_gap=merge_gap,
                min_speech=min_speech,
                padding=padding,
            )
        )

    def encode(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        deduplicate: bool = False,
        dense_features: bool = False,
    ) -> Units:
        """Turn one recording into units, as `AmelaClient.encode` does."""
        return self._wait_for(
            self._client.encode(
                audio,
                start=start,
                duration=duration,
                channel=channel,
                deduplicate=deduplicate,
                dense_features=dense_features,
            )
        )

    def synthesize(
        self,
        units: Sequence[int],
        *,
        durations: Sequence[int] | None = None,
        predict_durations: bool = False,
        speaker: VoicePart = None,
        style: VoicePart = None,
    ) -> SynthesizedAudio:
        """Turn units into audio, as `AmelaClient.synthesize` does."""
        return self._wait_for(
            self._client.synthesize(
                units, durations=durations, predict_durations=predict_durations, speaker=speaker, style=style
            )
        )

    def resynthesize(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        speaker: VoicePart = None,
        style: VoicePart = None,
    ) -> SynthesizedAudio:
        """Turn one recording into audio through units, as `AmelaClient.resynthesize` does."""
        return self._wait_for(
            self._client.resynthesize(
                audio, start=start, duration=duration, channel=channel, speaker=speaker, style=style
            )
        )

    def transcribe_all(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[Transcript]]:
        """Transcribe any number of recordings, as `AmelaClient.transcribe_all` does."""
        return self._iterate(self._client.transcribe_all(tasks))

    def detect_all(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[VoiceActivity]]:
        """Find the speech in any number of recordings, as `AmelaClient.detect_all` does."""
        return self._iterate(self._client.detect_all(tasks))

    def encode_all(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[Units]]:
        """Encode any number of recordings, as `AmelaClient.encode_all` does."""
        return self._iterate(self._client.encode_all(tasks))

    def synthesize_all(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[SynthesizedAudio]]:
        """Synthesize any number of unit sequences, as `AmelaClient.synthesize_all` does."""
        return self._iterate(self._client.synthesize_all(tasks))

    def resynthesize_all(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[SynthesizedAudio]]:
        """Resynthesize any number of recordings, as `AmelaClient.resynthesize_all` does."""
        return self._iterate(self._client.resynthesize_all(tasks))

    def models(self, service: Service) -> list[Model]:
        """Wait for a server and say what those there are run, as `AmelaClient.models` does."""
        return self._wait_for(self._client.models(service))

    def serving(self, service: Service) -> int:
        """Count the servers that take this client's calls now."""
        return self._client.serving(service)

    def servers(self) -> list[ServerStatus]:
        """Ask every server that can be found how it does."""
        return self._wait_for(self._client.servers())

    def _wait_for(self, coroutine: Coroutine[Any, Any, AnyT]) -> AnyT:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("this client is not open: use it as `with SyncAmelaClient() as client:`")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C reaches the thread that waits; the call has to end with it.
            future.cancel()
            raise

    def _iterate(self, items: AsyncGenerator[AnyT, None]) -> Iterator[AnyT]:
        try:
            while True:
                try:
                    yield self._wait_for(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if self._loop is not None:
                self._wait_for(items.aclose())


async def _next(items: AsyncGenerator[AnyT, None]) -> AnyT:
    return await anext(items)


async def _from_thread(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Read chunks, which come when they come, without holding up the event loop."""
    iterator = iter(chunks)
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk

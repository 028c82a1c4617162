"""AMELA's services as Python calls."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing

from amela.vad.v1.vad_pb2 import DetectStreamRequest

from amela_client.backlog import Outcome, Task
from amela_client.channel import Connection
from amela_client.requests import (
    AudioInput,
    VoicePart,
    detect_request,
    encode_request,
    resynthesize_request,
    segmentation_options,
    synthesize_request,
    transcribe_request,
)
from amela_client.results import SpeechEvent, Transcript, VoiceActivity
from amela_client.services import ASR, STS, VAD
from amela_client.session import Session
from amela_client.synthesized import SynthesizedAudio
from amela_client.units import Units


class AmelaClient(Session):
    """Calls whatever AMELA servers there are, found through a registry folder.

    ::

        async with AmelaClient() as client:
            transcript = await client.transcribe("recording.flac", words=True)
            print(transcript.text)

    Calls may be made at the same time; they are spread over the servers, and failures that another
    try can mend get one. `SyncAmelaClient` is the same without ``await``. Parameters are those of `Session`.
    """

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
        result: Transcript = await self._one(ASR, request, duration)
        return result

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
        result: VoiceActivity = await self._one(VAD, request, duration)
        return result

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
        fleet = await self._fleet(VAD)
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

        connection = member.server
        assert isinstance(connection, Connection)
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

    async def encode(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        deduplicate: bool = False,
        dense_features: bool = False,
    ) -> Units:
        """Turn one recording of any length into discrete units.

        Parameters
        ----------
        audio, start, duration, channel
            As for `transcribe`.
        deduplicate
            Whether to keep one unit for each run of equal ones; durations say how long it lasts.
        dense_features
            Whether to answer with the features that the units come from as well.

        Raises
        ------
        CallError, NoServersError, DiscoveryError, MixedModelsError, ValueError
            As `transcribe` does.
        """
        request = encode_request(
            audio,
            start=start,
            duration=duration,
            channel=channel,
            deduplicate=deduplicate,
            dense_features=dense_features,
        )
        result: Units = await self._one(STS, request, duration)
        return result

    async def synthesize(
        self,
        units: Sequence[int],
        *,
        durations: Sequence[int] | None = None,
        predict_durations: bool = False,
        speaker: VoicePart = None,
        style: VoicePart = None,
    ) -> SynthesizedAudio:
        """Turn units into audio.

        Parameters
        ----------
        units
            Ids from 0 to the model's vocabulary - 1.
        durations
            How many frames each of them lasts, as `encode` answers.
        predict_durations
            Whether the vocoder shall say that instead.
        speaker, style
            By name or by index, as the server has them. Default: the first.

        Raises
        ------
        CallError, NoServersError, DiscoveryError, MixedModelsError, ValueError
            As `transcribe` does. `OutputError` if there is no room for long audio.
        """
        request = synthesize_request(
            units, durations=durations, predict_durations=predict_durations, speaker=speaker, style=style
        )
        result: SynthesizedAudio = await self._one(STS, request)
        return result

    async def resynthesize(
        self,
        audio: AudioInput,
        *,
        start: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
        speaker: VoicePart = None,
        style: VoicePart = None,
    ) -> SynthesizedAudio:
        """Turn one recording into units and these into audio.

        Parameters
        ----------
        audio, start, duration, channel
            As for `transcribe`.
        speaker, style
            As for `synthesize`.

        Raises
        ------
        CallError, NoServersError, DiscoveryError, MixedModelsError, ValueError, OutputError
            As `synthesize` does.
        """
        request = resynthesize_request(
            audio, start=start, duration=duration, channel=channel, speaker=speaker, style=style
        )
        result: SynthesizedAudio = await self._one(STS, request, duration)
        return result

    def transcribe_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[Transcript], None]:
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
        return self._all(ASR, tasks)

    def detect_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[VoiceActivity], None]:
        """Find the speech in any number of recordings: like `transcribe_all`, with `detect_request`."""
        return self._all(VAD, tasks)

    def encode_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[Units], None]:
        """Encode any number of recordings: like `transcribe_all`, with `encode_request`."""
        return self._all(STS, tasks)

    def synthesize_all(self, tasks: Iterable[Task | None]) -> AsyncGenerator[Outcome[SynthesizedAudio], None]:
        """Synthesize any number of unit sequences: like `transcribe_all`, with `synthesize_request`."""
        return self._all(STS, tasks)

    def resynthesize_all(
        self, tasks: Iterable[Task | None]
    ) -> AsyncGenerator[Outcome[SynthesizedAudio], None]:
        """Resynthesize any number of recordings: like `transcribe_all`, with `resynthesize_request`."""
        return self._all(STS, tasks)

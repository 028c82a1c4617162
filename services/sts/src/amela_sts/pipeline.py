"""The ways of a request: recording to units, units to audio, and one behind the other."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import NamedTuple

import numpy as np
from amela_common.audio import AudioSource
from numpy.typing import NDArray

from amela_sts.computing import SPOKEN_SECONDS, Computing
from amela_sts.engine import Encoded, EncodeJob, SynthesizeJob, Vocoder
from amela_sts.front import End, Front
from amela_sts.units import Ints
from amela_sts.voices import VoiceIndex
from amela_sts.windows import Window, Windows

# Units in a window of the duration predictor, and neighbours that reach across its edges.
_PREDICTED_UNITS = 10_000
_PREDICTED_CONTEXT = 2


class Spoken(NamedTuple):
    """A stretch of audio, and the units of its frames."""

    units: Ints
    samples: NDArray[np.float32]


WhenLong = Callable[[], Awaitable[None]]
"""Awaited before a recording of several windows is read."""


class Pipeline:
    """Runs requests of any length in bounded memory; windows of many requests share batches."""

    def __init__(self, front: Front, computing: Computing) -> None:
        self._front = front
        self._computing = computing

    async def encode(
        self, source: AudioSource, *, dense: bool = False, when_long: WhenLong | None = None
    ) -> AsyncGenerator[Encoded | End]:
        """Yield what the windows of a recording become, and then its `End`; raises `RequestError`."""
        caller = object()
        async with aclosing(self._front.windows(source, when_long)) as windows:
            async for window in windows:
                if isinstance(window, End):
                    yield window
                else:
                    yield await self._computing.encode(EncodeJob(window, dense), caller)

    async def resynthesize(
        self, source: AudioSource, vocoder: Vocoder, voice: VoiceIndex, *, when_long: WhenLong | None = None
    ) -> AsyncGenerator[Spoken]:
        """Yield the audio that a recording becomes; raises `RequestError`."""

        async def units() -> AsyncGenerator[Ints]:
            async with aclosing(self.encode(source, when_long=when_long)) as windows:
                async for window in windows:
                    if isinstance(window, Encoded):
                        yield window.units

        # What is left open keeps its process of the front until the garbage collector comes by.
        async with (
            aclosing(units()) as pieces,
            aclosing(self.speak(pieces, vocoder, voice)) as stretches,
        ):
            async for stretch in stretches:
                yield stretch

    async def speak(
        self, units: AsyncIterator[Ints], vocoder: Vocoder, voice: VoiceIndex
    ) -> AsyncGenerator[Spoken]:
        """Yield the audio of units, one for each frame, that come piece by piece; raises `RequestError`."""
        caller = object()
        windows = Windows(int(SPOKEN_SECONDS * self._computing.engine.unit_rate), vocoder.config.context)
        async for piece in units:
            for window in windows.push(piece):
                yield await self._speak(window, voice, caller)
        for window in windows.finish():
            yield await self._speak(window, voice, caller)

    async def predict_durations(self, units: Ints) -> Ints:
        """Predict the durations of deduplicated units, in frames; raises `RequestError`."""
        caller = object()
        windows = Windows(_PREDICTED_UNITS, _PREDICTED_CONTEXT)
        cut: Iterable[Window] = (*windows.push(units), *windows.finish())
        return np.concatenate([await self._computing.predict_durations(window, caller) for window in cut])

    async def _speak(self, window: Window, voice: VoiceIndex, caller: object) -> Spoken:
        samples = await self._computing.synthesize(SynthesizeJob(window, voice), caller)
        return Spoken(window.items[window.skip : window.skip + window.keep], samples)

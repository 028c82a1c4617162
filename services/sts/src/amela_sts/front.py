"""From a request's recording to windows for the encoder, in worker processes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from amela_common.audio import AudioLimits, AudioSource, read_blocks
from amela_common.pool import CHECKPOINT, WorkerPool
from numpy.typing import NDArray

from amela_sts.encoder.layers import Convolutions
from amela_sts.windows import Window, Windows

MIDDLE_SECONDS = 80
CONTEXT_SECONDS = 10
"""A recording of up to 100 s is encoded whole, as textless does. Attention sees all of what it is given, so
the units of a longer one hang on where it is cut: always into middles of 80 s, with 10 s of context on each
side."""


class End(NamedTuple):
    """What comes after the last window: length of the audio in seconds."""

    seconds: float


class Cut(NamedTuple):
    """What a worker is asked for: windows of a recording, or None in their stead if there are several.

    Attributes
    ----------
    only_one
        Whether it is to stop at a recording that takes more than one window.
    """

    source: AudioSource
    only_one: bool = False


class AudioShape(NamedTuple):
    """What the encoder wants."""

    sample_rate: int
    convolutions: Convolutions
    normalize: bool


class _Level(NamedTuple):
    """What a recording is normalised by."""

    mean: float
    deviation: float


class Cutter:
    """A worker's work: decodes a recording and cuts it, in bounded memory."""

    def __init__(self, limits: AudioLimits, shape: AudioShape) -> None:
        self._limits = limits
        self._shape = shape

    def __call__(self, request: Cut) -> Iterator[Any]:
        """Yield windows of samples, and then an `End`; raises `RequestError`."""
        source, only_one = request
        sample_rate, convolutions, normalize = self._shape
        rate = sample_rate // convolutions.hop
        windows = Windows(
            MIDDLE_SECONDS * rate, CONTEXT_SECONDS * rate, hop=convolutions.hop, field=convolutions.field
        )
        level: _Level | None = None
        samples = 0
        for block in self._blocks(source):
            yield CHECKPOINT
            samples += len(block)
            for window in windows.push(block):
                if only_one:
                    yield None
                    return
                if normalize and level is None:
                    level = yield from self._measure(source)
                yield _levelled(window, level)
        if samples < convolutions.field:
            raise source.error(
                "AUDIO_TOO_SHORT",
                f"{samples} samples at {sample_rate} Hz; one unit takes {convolutions.field}",
            )
        for window in windows.finish():
            yield _levelled(window, level)
        yield End(samples / sample_rate)

    def _measure(self, source: AudioSource) -> Generator[Any, None, _Level]:
        """Read a whole recording for its level, by the formula of torch's layer norm."""
        count, total, squares = 0, 0.0, 0.0
        for block in self._blocks(source):
            yield CHECKPOINT
            exact = block.astype(np.float64)
            count += len(exact)
            total += float(exact.sum())
            squares += float(exact @ exact)
        mean = total / count
        return _Level(mean, float(np.sqrt(max(0.0, squares / count - mean**2) + 1e-5)))

    def _blocks(self, source: AudioSource) -> Iterator[NDArray[np.float32]]:
        return read_blocks(source, self._shape.sample_rate, self._limits)


def _levelled(window: Window, level: _Level | None) -> Window:
    # The encoder normalises what it gets whole. A part has to be normalised as the whole would be.
    if window.whole or level is None:
        return window
    return window._replace(items=((window.items - level.mean) / level.deviation).astype(np.float32))


class Front:
    """A pool of processes that decode and cut.

    A recording of one window has a process only while it is decoded. Longer ones keep a process each for as
    long as the device, or whoever reads the answer, is busy with them: they take turns for all processes but
    one, which the short ones always find.

    Parameters
    ----------
    workers
        Processes, at least 2.
    on_restart
        Called whenever a process has died and is replaced.
    """

    def __init__(
        self, limits: AudioLimits, shape: AudioShape, workers: int, on_restart: Callable[[], None]
    ) -> None:
        self._pool = WorkerPool(partial(Cutter, limits, shape), workers, "front", on_restart=on_restart)
        self._for_long_recordings = asyncio.Semaphore(workers - 1)

    async def start(self) -> None:
        """Start the processes; raises `ConfigError`."""
        await self._pool.start()

    async def close(self) -> None:
        """End the processes."""
        await self._pool.close()

    async def windows(
        self, source: AudioSource, when_long: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Window | End]:
        """Yield windows of a recording as they are asked for, and then an `End`; raises `RequestError`.

        A recording of several windows waits for `when_long` first.
        """
        async with aclosing(self._pool.stream(Cut(source, only_one=True))) as items:
            found = [item async for item in items]
        if None not in found:
            for item in found:
                yield item
            return
        if when_long is not None:
            await when_long()
        async with self._for_long_recordings, aclosing(self._pool.stream(Cut(source))) as items:
            async for item in items:
                yield item

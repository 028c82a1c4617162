"""CMU PocketSphinx with the English model inside its wheel: small, on CPU, for trying things out."""

import asyncio
from collections.abc import Callable, Hashable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pocketsphinx
from amela.common.v1.server_pb2 import Gpu
from amela_common.audio import Clip
from amela_common.errors import ConfigError
from amela_common.pool import WorkerPool
from numpy.typing import NDArray

from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.fingerprint import fingerprint

SAMPLE_RATE = 16_000
MODEL = "en-us"

# Raised whenever this module makes something else of the same audio.
_RESULTS_VERSION = 1
_FRAME_SECONDS = 0.01


class PocketsphinxEngine:
    """A pool of processes with one decoder each.

    Parameters
    ----------
    model
        None or ``en-us``: there is no other.
    workers
        Processes, each of which keeps a core busy.
    on_restart
        Called whenever a process has died and is replaced.

    Raises
    ------
    ConfigError
        If another model is asked for.
    """

    name = "pocketsphinx"
    model = MODEL
    device = "cpu"
    gpu: Gpu | None = None
    batch_seconds = 0.0
    warnings: tuple[str, ...] = (
        "for trying things out: about 28 % of the words of read speech come out wrong",
    )
    capabilities = Capabilities(word_times=True, word_confidence=True, languages=("en", "en-US"))
    sample_rate = SAMPLE_RATE
    max_piece_seconds = 60.0

    def __init__(self, model: str | None, workers: int, on_restart: Callable[[], None]) -> None:
        if model not in (None, MODEL):
            raise ConfigError(f"--model {model}: the pocketsphinx engine has {MODEL} only; leave --model out")
        self.concurrency = workers
        self.fingerprint = ""
        self._pool = WorkerPool(Recognizer, workers, self.name, on_restart=on_restart)

    async def load(self) -> None:
        """Start the processes; each loads the model and tries it."""
        self.fingerprint, _ = await asyncio.gather(asyncio.to_thread(_fingerprint), self._pool.start())

    async def recognize(self, clip: Clip, options: Options, caller: Hashable) -> Recognition:
        """Recognise one clip; words and confidences cost nothing and are always there."""
        recognition: Recognition = await self._pool.call(clip.samples)
        return recognition

    async def close(self) -> None:
        """End the processes."""
        await self._pool.close()


class Recognizer:
    """One decoder, in a process of its own: the pool's handler.

    Raises
    ------
    ConfigError
        If the decoder does not work.
    """

    def __init__(self) -> None:
        self._decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        self._try_out()

    def __call__(self, samples: NDArray[np.float32]) -> Iterator[Recognition]:
        """Recognise float32[n] mono samples at 16 kHz."""
        yield recognition_of(self._decode(samples))

    def _decode(self, samples: NDArray[np.float32]) -> list[Any]:
        if not samples.size:
            return []
        pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
        # Without this, the noise that was heard in earlier clips would be taken off this one.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        try:
            # As a full utterance, the means that features are freed of come from this clip alone.
            self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        finally:
            self._decoder.end_utt()
        return list(self._decoder.seg() or ())

    def _try_out(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE // 2).astype(np.float32)
        if not self._decode(noise):
            raise ConfigError("pocketsphinx found no path through its model: install the wheel anew")


def recognition_of(segments: list[Any]) -> Recognition:
    """Make words of PocketSphinx's segmentation, whose frames last 10 ms, the last one included."""
    words = tuple(
        Word(
            # Variants of a pronunciation are numbered: even(2).
            text=segment.word.partition("(")[0],
            start=segment.start_frame * _FRAME_SECONDS,
            end=(segment.end_frame + 1) * _FRAME_SECONDS,
            # The posterior in the word lattice; in its log arithmetic it can exceed 1 by a little.
            confidence=min(1.0, segment.prob),
        )
        for segment in segments
        if segment.word[0] not in "<["  # <s>, <sil>, [NOISE], …
    )
    return Recognition(
        text=" ".join(word.text for word in words),
        words=words,
        confidence=fmean(word.confidence or 0.0 for word in words) if words else None,
    )


def _fingerprint() -> str:
    files = sorted(path for path in Path(pocketsphinx.get_model_path(MODEL)).rglob("*") if path.is_file())
    return fingerprint(_RESULTS_VERSION, version("pocketsphinx"), files=files)

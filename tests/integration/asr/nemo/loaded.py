"""An engine around a model that tests can look into."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from amela_asr.engine import Options, Recognition
from amela_asr.engines.batched import BatchedEngine
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.recognizer import Recognizer
from amela_asr.engines.sizing import Batching
from amela_common.audio import Clip
from amela_common.server import Metrics, Runtime

from .conftest import RATE, Command


def batching() -> Batching:
    """Make batches of a few clips."""
    return Batching(piece_seconds=30.0, max_wait=0.005, device="cpu", seconds=25.0)


class Loaded:
    """A recogniser and the engine around it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtime = Runtime(Metrics())
        self.recognizer: Recognizer
        self.engine = BatchedEngine(str(path), self._load, batching(), self.runtime)

    def _load(self) -> Recognizer:
        self.recognizer = load_recognizer(str(self.path), offline=True, device="cpu")
        return self.recognizer

    async def recognize(self, command: Command, options: Options | None = None) -> Recognition:
        return await self.engine.recognize(Clip(command.samples, RATE), options or Options(), object())

    async def recognize_from_many(
        self, callers: int, commands: Sequence[Command], truth: Sequence[str], options: Options | None = None
    ) -> None:
        """Let callers ask for six commands each, each in its order; all texts must be true."""

        async def caller(seed: int) -> None:
            order = list(range(len(commands)))
            random.Random(seed).shuffle(order)
            for number in order[:6]:
                await asyncio.sleep(0.001 * (seed % 7))
                assert (await self.recognize(commands[number], options)).text == truth[number]

        await asyncio.gather(*map(caller, range(callers)))

    def weights(self) -> dict[str, torch.Tensor]:
        """Copy all of the model's parameters and statistics."""
        state = self.recognizer._model.state_dict()  # type: ignore[attr-defined]
        return {name: value.clone() for name, value in state.items()}

    def batches(self) -> tuple[float, float]:
        """Count batches, and the clips in them."""
        value = self.runtime.metrics.registry.get_sample_value
        return value("amela_batch_items_count") or 0, value("amela_batch_items_sum") or 0

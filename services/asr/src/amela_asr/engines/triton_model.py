"""Triton's side: the recogniser of this package behind Triton's dynamic batcher.

``model.py`` in the model repository turns Triton's requests into `Item` and answers back; this is all
the rest, so that it runs without Triton too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from amela_common.audio import Clip
from amela_common.batching import BatchMetrics, Budget
from amela_common.batching.fair_queue import FairQueue
from amela_common.batching.recovery import Recovery, Sized
from amela_common.errors import ConfigError, RequestError
from amela_common.server.settings import load_settings
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amela_asr.engine import Recognition
from amela_asr.engines.loading import checkpoint_loader
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.engines.screening import check_clip, is_silent
from amela_asr.engines.sizing import Batching, find_budget
from amela_asr.engines.triton_messages import (
    DESCRIBE,
    Description,
    decode_options,
    encode_description,
    encode_recognition,
)
from amela_asr.options import check_options
from amela_asr.settings import AsrSettings


class Item(NamedTuple):
    """One request of Triton's: float32[n] samples at 16 kHz and the bytes of its options."""

    samples: NDArray[np.float32]
    options: bytes


class TritonModel:
    """Answers whatever requests Triton has put together.

    Raises
    ------
    ConfigError
        If the model cannot be loaded.
    """

    def __init__(self, recognizer: Recognizer, budget: Budget) -> None:
        self._recognizer = recognizer
        self._recovery: Recovery[Utterance, Recognition] = Recovery(
            recognizer.recognize, recognizer.device, budget, BatchMetrics(CollectorRegistry())
        )

    @classmethod
    def from_environment(cls) -> "TritonModel":
        """Load the model that ``AMELA_MODEL`` and the other variables of ``amela-asr`` name."""
        settings = load_settings(AsrSettings, "", [])
        if settings.model is None:
            raise ConfigError("AMELA_MODEL is not set: say which model Triton is to load")
        recognizer = checkpoint_loader(settings, settings.model)()
        return cls(recognizer, find_budget(recognizer, Batching.from_settings(settings)))

    def answer(self, items: Sequence[Item]) -> list[bytes | RequestError]:
        """Answer each item, in order.

        Raises
        ------
        BrokenDeviceError
            If the device is lost to this process.
        """
        answers: dict[int, bytes | RequestError] = {}
        waiting: FairQueue[tuple[int, Utterance]] = FairQueue()
        for number, item in enumerate(items):
            try:
                if item.options == DESCRIBE:
                    answers[number] = encode_description(self._description())
                    continue
                utterance = Utterance(Clip(item.samples, SAMPLE_RATE), decode_options(item.options))
                check_clip(utterance.clip)
                check_options(utterance.options, self._recognizer.capabilities, self._recognizer.model)
            except RequestError as error:
                answers[number] = error
                continue
            if is_silent(utterance.clip):
                answers[number] = encode_recognition(
                    Recognition("", words=() if utterance.options.words else None)
                )
                continue
            kind = self._recognizer.kind(utterance.options)
            seconds = utterance.clip.duration
            waiting.add((number, utterance), seconds=seconds, caller=None, kind=kind, now=0)
        while batch := waiting.take(self._recovery.budget):
            outcomes = self._recovery.run([Sized(entry.item[1], entry.seconds) for entry in batch])
            for entry, outcome in zip(batch, outcomes, strict=True):
                answers[entry.item[0]] = (
                    outcome if isinstance(outcome, RequestError) else encode_recognition(outcome)
                )
        return [answers[number] for number in range(len(items))]

    def _description(self) -> Description:
        recognizer = self._recognizer
        return Description(
            recognizer.name,
            recognizer.model,
            recognizer.fingerprint,
            recognizer.device.name,
            recognizer.warnings,
            recognizer.max_piece_seconds,
            recognizer.capabilities,
        )

"""Canary: prompted encoder-decoders, whose prompt names languages and asks for times.

NeMo runs them by `transcribe` alone, which keeps its state in the model: the device's one thread is the
lock that this needs.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from amela_common.audio import Clip
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import RequestError

from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.engines.checkpoint import Checkpoint
from amela_asr.engines.languages import NAMES
from amela_asr.engines.nemo_recognizer import NemoRecognizer, best_of
from amela_asr.engines.recognizer import Utterance

# The models' cards: what they are trained on.
_MAX_PIECE_SECONDS = 40.0
# `transcribe` gives shorter clips silence on both sides up to this.
_SHORTEST_SECONDS = 1.0
# What NeMo asks files with; models of theirs bring the same, but need not.
_PROMPT = {
    "source_lang": "en",
    "target_lang": "en",
    "task": "asr",
    "pnc": "yes",
    "decodercontext": "",
    "emotion": "<|emo:undefined|>",
    "itn": "no",
    "timestamp": "no",
    "diarize": "no",
}


class CanaryRecognizer(NemoRecognizer):
    """EncDecMultiTaskModel.

    Raises
    ------
    ConfigError
        As `NemoRecognizer` does.
    """

    max_piece_seconds = _MAX_PIECE_SECONDS

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        self._prompt = _prompt(model)
        self._aligns = model.timestamps_asr_model is not None
        vocabulary = set(model.tokenizer.vocab)
        writes_times = "timestamp" in self._prompt and {"<|timestamp|>", "<|0|>"} <= vocabulary
        # An aggregate of tokenizers has one for each language, and one for the prompt's own tokens.
        known = getattr(model.tokenizer, "langs", NAMES)
        languages = sorted(tag for tag in known if f"<|{tag}|>" in vocabulary)
        self._tags = {tag.lower(): tag for tag in languages}
        self.capabilities = Capabilities(word_times=self._aligns or writes_times, languages=tuple(languages))

    def kind(self, options: Options) -> Hashable:
        """Keep prompts apart: `transcribe` has one for all."""
        return options.language, options.words

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        """Recognise a batch that shares its prompt."""
        options = batch[0].options
        slots = dict(self._prompt)
        if options.language is not None:
            slots["source_lang"] = slots["target_lang"] = self._tags[options.language.lower()]
        if options.words and not self._aligns:
            slots["timestamp"] = "yes"
        hypotheses = self._model.transcribe(
            [utterance.clip.samples for utterance in batch],
            override_config=_config(slots, len(batch)),
            timestamps=options.words or None,
        )
        if len(hypotheses) != len(batch):
            raise RuntimeError(f"NeMo gave {len(hypotheses)} texts for {len(batch)} clips")
        return [
            Recognition(
                best_of(hypothesis).text.strip(),
                _words(best_of(hypothesis), utterance.clip) if options.words else None,
            )
            for hypothesis, utterance in zip(hypotheses, batch, strict=True)
        ]

    def _parts(self) -> list[Any]:
        return [self._model]


def _prompt(model: Any) -> dict[str, str]:
    """Fill the slots of a model's prompt: by its own defaults, or else by NeMo's."""
    (turn,) = (turn for turn in model.prompt.get_default_dialog_slots() if turn["role"] == "user")
    return {
        slot: _PROMPT.get(slot, "") if default is None else default for slot, default in turn["slots"].items()
    }


def _config(slots: dict[str, str], batch_size: int) -> Any:
    from nemo.collections.asr.models.aed_multitask_models import (  # noqa: PLC0415 - takes seconds
        MultiTaskTranscriptionConfig,
    )

    return MultiTaskTranscriptionConfig(
        batch_size=batch_size,
        num_workers=0,
        verbose=False,
        prompt={"role": "user", "slots": slots},
        # This would treat a clip that comes alone another way than one in a batch.
        enable_chunking=False,
    )


def _words(hypothesis: Any, clip: Clip) -> tuple[Word, ...]:
    """Take words with their times, and the silence that was put before the clip off these."""
    lead = max(0.0, _SHORTEST_SECONDS - clip.duration) / 2
    return tuple(
        Word(
            str(time["word"]),
            min(max(float(time["start"]) - lead, 0.0), clip.duration),
            min(max(float(time["end"]) - lead, 0.0), clip.duration),
        )
        for time in hypothesis.timestamp["word"]
    )

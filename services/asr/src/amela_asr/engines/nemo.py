"""NeMo's models from ``.nemo`` files: CTC, RNNT, TDT and hybrids by their own decoders, and Canary."""

import copy
from typing import Any

import numpy as np
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError
from torch import Tensor

from amela_asr.engine import Capabilities, Recognition, Word
from amela_asr.engines.canary import CanaryRecognizer
from amela_asr.engines.checkpoint import Checkpoint
from amela_asr.engines.ctc_words import best_path, words_of
from amela_asr.engines.nemo_recognizer import NemoRecognizer, best_of
from amela_asr.engines.quiet import quiet_import
from amela_asr.engines.recognizer import Recognizer
from amela_asr.engines.tar_filters import tar_filters

# What makes the transducers' decoders tell words with times and confidences.
_DETAILS = {
    # Gives the same texts as `greedy`, which for TDT cannot tell confidences.
    "strategy": "greedy_batch",
    "compute_timestamps": True,
    "preserve_alignments": True,
    "confidence_cfg": {
        "preserve_frame_confidence": True,
        "preserve_token_confidence": True,
        "preserve_word_confidence": True,
        "exclude_blank": True,
        "aggregation": "mean",
        "method_cfg": {"name": "max_prob"},
    },
}


def load_nemo(checkpoint: Checkpoint, device: TorchDevice, precision: str) -> Recognizer:
    """Load a ``.nemo`` file.

    Raises
    ------
    ConfigError
        If it is not a speech recognition checkpoint that NeMo can restore.
    """
    with quiet_import():
        # Takes ten seconds: only when asked for.
        from nemo.collections.asr import models  # noqa: PLC0415
        from nemo.utils.model_utils import import_class_by_path  # noqa: PLC0415
    # These alone: what is derived from them wants more than audio, such as a prompt or a speaker.
    families: dict[type[Any], type[NemoRecognizer]] = {
        models.EncDecCTCModel: _CtcRecognizer,
        models.EncDecCTCModelBPE: _CtcRecognizer,
        models.EncDecRNNTModel: _TransducerRecognizer,
        models.EncDecRNNTBPEModel: _TransducerRecognizer,
        models.EncDecHybridRNNTCTCModel: _TransducerRecognizer,
        models.EncDecHybridRNNTCTCBPEModel: _TransducerRecognizer,
        models.EncDecMultiTaskModel: CanaryRecognizer,
    }
    path = str(checkpoint.path)
    try:
        with tar_filters():
            family = import_class_by_path(models.ASRModel.restore_from(path, return_config=True).target)
            model = family.restore_from(path, map_location=device.torch) if family in families else None
    except Exception as error:
        # Whatever a broken file makes tarfile, OmegaConf or PyTorch raise.
        if device.is_out_of_memory(error) or device.is_broken(error):
            raise
        # What OmegaConf says takes several lines.
        words = " ".join(str(error).split())
        raise ConfigError(
            f"--model {checkpoint.name}: NeMo cannot restore it ({type(error).__name__}: {words});"
            " take a .nemo file of a speech recognition model"
        ) from error
    if model is None:
        raise ConfigError(
            f"--model {checkpoint.name}: {family.__name__} is none of NeMo's CTC, RNNT, TDT, hybrid or"
            " Canary models"
        )
    return families[family](model, checkpoint, device, precision)


class _CtcRecognizer(NemoRecognizer):
    """EncDecCTCModel and EncDecCTCModelBPE."""

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        self._vocabulary = [str(token) for token in model.decoder.vocabulary]
        if not _is_greedy(model):
            self.capabilities = Capabilities()

    def _decode(self, encoded: Tensor, lengths: Tensor, detailed: bool) -> list[Recognition]:
        log_probs = self._model.decoder(encoder_output=encoded).float()
        hypotheses = self._model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)
        texts = [best_of(hypothesis).text.strip() for hypothesis in hypotheses]
        if not detailed:
            return [Recognition(text) for text in texts]
        rows = log_probs.cpu().numpy()
        return [
            _with_words(text, self._words(row[:length], text))
            for text, row, length in zip(texts, rows, lengths.tolist(), strict=True)
        ]

    def _words(self, log_probs: "np.ndarray[Any, np.dtype[np.float32]]", text: str) -> tuple[Word, ...]:
        emissions = best_path(log_probs, blank=len(self._vocabulary))
        return words_of(emissions, self._vocabulary, text, self._frame_seconds)


class _TransducerRecognizer(NemoRecognizer):
    """EncDecRNNTModel, with word pieces or without, TDT, and the hybrids' transducer side."""

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        self._plain = model.decoding
        self._detailed: Any = None
        if _is_greedy(model):
            self._detailed = self._make_detailed()
        else:
            self.capabilities = Capabilities()

    def _make_detailed(self) -> Any:
        """Make a second decoder: switching one between calls would change what later calls give."""
        model = self._model
        plain = copy.deepcopy(model.cfg.decoding)
        config = copy.deepcopy(plain)
        for key, value in _DETAILS.items():
            _set(config, key, value)
        model.change_decoding_strategy(config, verbose=False)
        detailed, model.decoding = model.decoding, self._plain
        model.cfg.decoding = plain
        return detailed

    def _decode(self, encoded: Tensor, lengths: Tensor, detailed: bool) -> list[Recognition]:
        decoding = self._detailed if detailed else self._plain
        hypotheses = decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=detailed)
        best = [best_of(hypothesis) for hypothesis in hypotheses]
        if not detailed:
            return [Recognition(hypothesis.text.strip()) for hypothesis in best]
        return [_with_words(hypothesis.text.strip(), self._words(hypothesis)) for hypothesis in best]

    def _words(self, hypothesis: Any) -> tuple[Word, ...]:
        times = hypothesis.timestamp["word"]
        confidences = hypothesis.word_confidence or []
        if len(confidences) != len(times):
            confidences = [None] * len(times)
        return tuple(
            Word(
                str(time["word"]),
                float(time["start_offset"]) * self._frame_seconds,
                float(time["end_offset"]) * self._frame_seconds,
                None if confidence is None else float(confidence),
            )
            for time, confidence in zip(times, confidences, strict=True)
        )


def _is_greedy(model: Any) -> bool:
    """Whether its words are those of its best path, whose times and confidences are known."""
    return str(model.cfg.decoding.strategy).startswith("greedy")


def _with_words(text: str, words: tuple[Word, ...]) -> Recognition:
    known = [word.confidence for word in words if word.confidence is not None]
    return Recognition(text, words, float(np.mean(known)) if known else None)


def _set(config: Any, key: str, value: object) -> None:
    from omegaconf import open_dict  # noqa: PLC0415 - comes with NeMo

    with open_dict(config):
        config[key] = value

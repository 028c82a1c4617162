"""NeMo's CTC, RNNT, TDT, hybrid and Canary models by direct batched forward and their own decoders.

`transcribe` is not for servers: it loses track of items that fail, changes the model while it runs, and
costs more than the forward of a short clip.
"""

import copy
import logging
from collections.abc import Hashable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError, RequestError
from torch import Tensor

from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.engines.checkpoint import Checkpoint
from amela_asr.engines.ctc_words import best_path, words_of
from amela_asr.engines.quiet import quiet_import
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.fingerprint import fingerprint

log = logging.getLogger(__name__)

# Raised whenever this module makes something else of the same audio.
_RESULTS_VERSION = 1
# FastConformers attend to whole pieces: beyond some minutes memory, not the model, is the limit.
_MAX_PIECE_SECONDS = 600.0
# Canary models are trained on up to 40 s.
_CANARY_MAX_PIECE_SECONDS = 40.0
# What makes the transducers' decoders tell words with times and confidences.
_DETAILS = {
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
        from nemo.collections.asr.models import (  # noqa: PLC0415 - takes ten seconds: only when asked for
            ASRModel,
            EncDecCTCModel,
            EncDecMultiTaskModel,
            EncDecRNNTModel,
        )
    try:
        model = ASRModel.restore_from(str(checkpoint.path), map_location=device.torch)
    except Exception as error:
        # Whatever a broken file makes tarfile, OmegaConf or PyTorch raise.
        if device.is_out_of_memory(error) or device.is_broken(error):
            raise
        raise ConfigError(
            f"--model {checkpoint.name}: NeMo cannot restore it ({type(error).__name__}: {error});"
            " take a .nemo file of a speech recognition model"
        ) from error
    families: list[tuple[type[Any], type[_NemoRecognizer]]] = [
        (EncDecCTCModel, _CtcRecognizer),
        (EncDecRNNTModel, _TransducerRecognizer),
        (EncDecMultiTaskModel, _CanaryRecognizer),
    ]
    for family, recognizer in families:
        if isinstance(model, family):
            return recognizer(model, checkpoint, device, precision)
    raise ConfigError(
        f"--model {checkpoint.name}: {type(model).__name__} is none of NeMo's CTC, RNNT, TDT, hybrid or"
        " Canary models"
    )


class _NemoRecognizer:
    """What NeMo's families share."""

    name = "nemo"
    capabilities = Capabilities(word_times=True, word_confidence=True)
    max_piece_seconds = _MAX_PIECE_SECONDS

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        rate = int(model.preprocessor.featurizer.sample_rate)
        if rate != SAMPLE_RATE:
            raise ConfigError(
                f"--model {checkpoint.name}: it works at {rate} Hz; this server has {SAMPLE_RATE} Hz only"
            )
        self.model = checkpoint.name
        self.device = device
        self.warnings: tuple[str, ...] = ()
        self._model = model
        self._dtype = device.precision(precision)
        self.fingerprint = fingerprint(
            _RESULTS_VERSION, version("nemo_toolkit"), str(self._dtype), files=[checkpoint.path]
        )
        model.eval().requires_grad_(False)
        # As transcribe sets them: noise and padding are for training.
        model.preprocessor.featurizer.dither = 0.0
        model.preprocessor.featurizer.pad_to = 0
        for part in self._parts():
            part.to(self._dtype)
        self._frame_seconds = float(model.cfg.preprocessor.window_stride) * model.encoder.subsampling_factor

    def kind(self, options: Options) -> Hashable:
        """Batches with words cost more than those without."""
        return options.words or options.confidence

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        """Recognise a batch."""
        detailed = any(self.kind(utterance.options) for utterance in batch)
        with torch.inference_mode():
            encoded, lengths = self._encode(batch)
            return list(self._decode(encoded, lengths, detailed))

    def _parts(self) -> list[Any]:
        """List the modules whose arithmetic may be in less than float32: not the spectrogram's."""
        model = self._model
        return [getattr(model, name) for name in ("encoder", "decoder", "joint") if hasattr(model, name)]

    def _encode(self, batch: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        audio, lengths = padded(batch, self.device)
        features, lengths = self._model.preprocessor(input_signal=audio, length=lengths)
        encoded, lengths = self._model.encoder(audio_signal=features.to(self._dtype), length=lengths)
        return encoded, lengths

    def _decode(self, encoded: Tensor, lengths: Tensor, detailed: bool) -> list[Recognition]:
        raise NotImplementedError


class _CtcRecognizer(_NemoRecognizer):
    """EncDecCTCModel and EncDecCTCModelBPE."""

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        self._vocabulary = [str(token) for token in model.decoder.vocabulary]

    def _decode(self, encoded: Tensor, lengths: Tensor, detailed: bool) -> list[Recognition]:
        log_probs = self._model.decoder(encoder_output=encoded).float()
        hypotheses = self._model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)
        texts = [_best(hypothesis).text.strip() for hypothesis in hypotheses]
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


class _TransducerRecognizer(_NemoRecognizer):
    """EncDecRNNTModel, with word pieces or without, TDT, and the hybrids' transducer side."""

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        self._plain = model.decoding
        self._detailed: Any = None
        if str(model.cfg.decoding.strategy).startswith("greedy"):
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
        best = [_best(hypothesis) for hypothesis in hypotheses]
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


class _CanaryRecognizer(_NemoRecognizer):
    """EncDecMultiTaskModel: prompted encoder-decoders, which NeMo can run by `transcribe` alone.

    The device's one thread is the lock that this needs.
    """

    max_piece_seconds = _CANARY_MAX_PIECE_SECONDS

    def __init__(self, model: Any, checkpoint: Checkpoint, device: TorchDevice, precision: str) -> None:
        super().__init__(model, checkpoint, device, precision)
        languages = getattr(model.tokenizer, "langs", None) or ()
        self.capabilities = Capabilities(languages=tuple(sorted(set(languages) - {"spl_tokens"})))

    def kind(self, options: Options) -> Hashable:
        """Keep languages apart: `transcribe` has one for all."""
        return options.language

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        """Recognise a batch of one language."""
        language = batch[0].options.language
        prompt = {} if language is None else {"source_lang": language, "target_lang": language}
        hypotheses = self._model.transcribe(
            [utterance.clip.samples for utterance in batch], batch_size=len(batch), verbose=False, **prompt
        )
        if len(hypotheses) != len(batch):
            raise RuntimeError(f"NeMo gave {len(hypotheses)} texts for {len(batch)} clips")
        return [Recognition(_best(hypothesis).text.strip()) for hypothesis in hypotheses]

    def _parts(self) -> list[Any]:
        return [self._model] if self._dtype != torch.float32 else []


def padded(batch: Sequence[Utterance], device: TorchDevice) -> tuple[Tensor, Tensor]:
    """Pad clips to float32[batch, samples] with lengths int64[batch], on the device."""
    lengths = [len(utterance.clip.samples) for utterance in batch]
    audio = np.zeros((len(batch), max(lengths)), np.float32)
    for row, utterance in zip(audio, batch, strict=True):
        row[: len(utterance.clip.samples)] = utterance.clip.samples
    return torch.from_numpy(audio).to(device.torch), torch.tensor(lengths, device=device.torch)


def _best(hypothesis: Any) -> Any:
    """Take the best of what beam search gives as a list."""
    return hypothesis[0] if isinstance(hypothesis, list) else hypothesis


def _with_words(text: str, words: tuple[Word, ...]) -> Recognition:
    known = [word.confidence for word in words if word.confidence is not None]
    return Recognition(text, words, float(np.mean(known)) if known else None)


def _set(config: Any, key: str, value: object) -> None:
    from omegaconf import open_dict  # noqa: PLC0415 - comes with NeMo

    with open_dict(config):
        config[key] = value

"""What NeMo's families share: the direct batched forward of their encoders.

`transcribe` is not for servers: it loses track of items that fail, changes the model while it runs, and
costs more than the forward of a short clip.
"""

from collections.abc import Hashable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError, RequestError
from torch import Tensor

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines.checkpoint import Checkpoint
from amela_asr.engines.recognizer import SAMPLE_RATE, Utterance
from amela_asr.fingerprint import fingerprint

# Raised whenever NeMo's engine makes something else of the same audio.
_RESULTS_VERSION = 1
# FastConformers attend to whole pieces: beyond some minutes memory, not the model, is the limit.
_MAX_PIECE_SECONDS = 600.0


class NemoRecognizer:
    """A model of NeMo's whose encoder hears a whole batch.

    Raises
    ------
    ConfigError
        If it works at another sample rate, or not in this precision.
    """

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


def padded(batch: Sequence[Utterance], device: TorchDevice) -> tuple[Tensor, Tensor]:
    """Pad clips to float32[batch, samples] with lengths int64[batch], on the device."""
    lengths = [len(utterance.clip.samples) for utterance in batch]
    audio = np.zeros((len(batch), max(lengths)), np.float32)
    for row, utterance in zip(audio, batch, strict=True):
        row[: len(utterance.clip.samples)] = utterance.clip.samples
    return torch.from_numpy(audio).to(device.torch), torch.tensor(lengths, device=device.torch)


def best_of(hypothesis: Any) -> Any:
    """Take the best of what beam search gives as a list."""
    return hypothesis[0] if isinstance(hypothesis, list) else hypothesis

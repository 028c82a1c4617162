"""Features of several recordings at once, each as if it were alone.

fairseq pads a batch with zeros, and lets the padding through in three places: the group norm of the first
convolution takes its statistics over it, the padding mask is made of whole blocks of samples, and a batch
norm before the positional convolution makes something of its zeros. Here each recording has its own
statistics, the mask follows the convolutions' arithmetic, and padded frames are zero behind the batch norm.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everyone calls it
from torch import Tensor, nn

from amela_sts.encoder.loading import LoadedHubert


class HubertEncoder:
    """The layer of a HuBERT that units are made of.

    Parameters
    ----------
    layer
        Whose output to take, from 1.
    device
        Where to compute, as torch names it.
    """

    def __init__(self, loaded: LoadedHubert, layer: int, device: torch.device) -> None:
        self.convolutions = loaded.convolutions
        self.sample_rate = loaded.sample_rate
        self.normalize = loaded.normalize
        self.dim = loaded.dim
        self.device = device
        self._layer = layer
        self._model = loaded.model.to(device)
        # A conformer's convolutions reach into what the layer before made of the padding.
        self.takes_batches = not any(
            isinstance(module, nn.Conv1d) for module in self._model.encoder.layers.modules()
        )
        self._group_norm = _OwnStatistics.put_into(self._model)
        self._batch_norm = _ZeroBehind.put_into(self._model)

    @torch.inference_mode()
    def features(self, recordings: Sequence[Tensor], whole: Sequence[bool] | None = None) -> list[Tensor]:
        """Compute features.

        Parameters
        ----------
        recordings
            float32[samples] each, at `sample_rate`, none shorter than ``convolutions.field``.
        whole
            Which of them are whole recordings, to be normalised here if the model wants that. Default: all.

        Returns
        -------
        list of Tensor
            float32[frames, dim] each, on the device.
        """
        waves = [recording.to(self.device) for recording in recordings]
        if self.normalize:
            waves = [
                F.layer_norm(wave, wave.shape) if alone else wave
                for wave, alone in zip(waves, whole or [True] * len(waves), strict=True)
            ]
        if not self.takes_batches:
            return [self._encode([wave])[0] for wave in waves]
        return self._encode(waves)

    def _encode(self, waves: list[Tensor]) -> list[Tensor]:
        lengths = [len(wave) for wave in waves]
        frames = [self.convolutions.frames(length) for length in lengths]
        source = nn.utils.rnn.pad_sequence(waves, batch_first=True)
        padding = None
        if min(frames) < max(frames):
            counts = torch.tensor(frames, device=self.device)
            padding = torch.arange(max(frames), device=self.device)[None] >= counts[:, None]
        first = [self.convolutions.frames(length, 1) for length in lengths]
        with self._group_norm.over(first), self._batch_norm.zeroing(padding):
            encoded = self._forward(source, padding)
        return [encoded[at, :count] for at, count in enumerate(frames)]

    def _forward(self, source: Tensor, padding: Tensor | None) -> Tensor:
        # What HubertModel.forward does with features_only and without masking, its mask replaced by ours.
        model = self._model
        hidden = model.layer_norm(model.forward_features(source).transpose(1, 2))
        if model.post_extract_proj is not None:
            hidden = model.post_extract_proj(hidden)
        encoded: Tensor = model.encoder(hidden, padding_mask=padding, layer=self._layer - 1)[0]
        return encoded


class _OwnStatistics(nn.Module):
    """A group norm that takes each recording's statistics over its own frames."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._norm = norm
        self._lengths: Sequence[int] = ()

    @classmethod
    def put_into(cls, model: Any) -> "_OwnStatistics":
        block = model.feature_extractor.conv_layers[0]
        for at, module in enumerate(block):
            if isinstance(module, nn.GroupNorm):
                own = cls(module)
                block[at] = own
                return own
        # Models with layer norms take no statistics over time.
        return cls(nn.Identity())

    @contextmanager
    def over(self, lengths: Sequence[int]) -> Iterator[None]:
        self._lengths = lengths
        try:
            yield
        finally:
            self._lengths = ()

    def forward(self, hidden: Tensor) -> Tensor:
        if not self._lengths or min(self._lengths) == hidden.shape[-1]:
            alone: Tensor = self._norm(hidden)
            return alone
        normed = torch.zeros_like(hidden)
        for at, length in enumerate(self._lengths):
            normed[at : at + 1, :, :length] = self._norm(hidden[at : at + 1, :, :length])
        return normed


class _ZeroBehind(nn.Module):
    """A batch norm whose output is zero where the input is padding."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._norm = norm
        self._padding: Tensor | None = None

    @classmethod
    def put_into(cls, model: Any) -> "_ZeroBehind":
        layer = model.encoder.pos_conv
        if isinstance(layer[0], nn.BatchNorm1d):
            zeroing = cls(layer[0])
            layer[0] = zeroing
            return zeroing
        return cls(nn.Identity())

    @contextmanager
    def zeroing(self, padding: Tensor | None) -> Iterator[None]:
        self._padding = padding
        try:
            yield
        finally:
            self._padding = None

    def forward(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self._norm(hidden)
        return normed if self._padding is None else normed.masked_fill(self._padding[:, None], 0.0)

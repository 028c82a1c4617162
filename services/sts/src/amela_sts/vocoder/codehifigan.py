"""Audio of several unit sequences at once, each as if it were alone.

Alone, a sequence ends in the zeros that each convolution pads it with. In a batch a shorter one would end in
whatever the layers made of its padding; so before each convolution all past its end is set to zero again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from amela_sts.vocoder.config import VocoderConfig


class Utterance(NamedTuple):
    """Units to speak.

    Attributes
    ----------
    units
        int64[frames], one for each frame.
    speaker, style
        Indices.
    """

    units: Tensor
    speaker: int = 0
    style: int = 0


class CodeHiFiGAN:
    """A vocoder for units.

    Parameters
    ----------
    generator
        As `load_generator` gives it.
    device
        Where to compute, as torch names it.
    """

    def __init__(self, generator: Any, config: VocoderConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._generator = generator.to(device)
        # CodeGenerator's own forward takes one sequence; its base class's does the convolutions alone.
        base: Any = type(generator).__base__
        self._convolve: Callable[[Tensor], Tensor] = partial(base.forward, generator)
        self._ends: Tensor | None = None
        for module in generator.modules():
            # The duration predictor's convolutions come in a Sequential, and see one sequence at a time.
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                module.register_forward_pre_hook(self._silence_padding)

    @torch.inference_mode()
    def synthesize(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Compute float32[frames × hop] each, on the device."""
        frames = [len(utterance.units) for utterance in utterances]
        codes = nn.utils.rnn.pad_sequence([utterance.units for utterance in utterances], batch_first=True)
        hidden = self._embedded(codes.to(self.device), utterances)
        if min(frames) < max(frames):
            self._ends = torch.tensor(frames, device=self.device)[:, None] / max(frames)
        try:
            samples = self._convolve(hidden)
        finally:
            self._ends = None
        return [samples[at, 0, : count * self.config.hop] for at, count in enumerate(frames)]

    @torch.inference_mode()
    def durations(self, units: Tensor) -> Tensor:
        """Predict how many frames each of int64[n] deduplicated units lasts: int64[n], at least 1.

        As `CodeGenerator` does it. `config.predicts_durations` must hold. A unit's duration hangs on two
        neighbours on either side.
        """
        embedded = self._generator.dict(units.to(self.device)[None])
        logarithms = self._generator.dur_predictor(embedded)[0]
        return torch.clamp(torch.round(torch.exp(logarithms) - 1).long(), min=1)

    def _embedded(self, codes: Tensor, utterances: Sequence[Utterance]) -> Tensor:
        generator = self._generator
        parts = [generator.dict(codes)]
        if self.config.speakers:
            parts.append(self._voice(generator.spkr, [u.speaker for u in utterances], codes.shape[1]))
        if self.config.styles:
            parts.append(self._voice(generator.style, [u.style for u in utterances], codes.shape[1]))
        return torch.cat(parts, dim=2).transpose(1, 2)

    def _voice(self, embedding: nn.Embedding, indices: list[int], frames: int) -> Tensor:
        vectors: Tensor = embedding(torch.tensor(indices, device=self.device))
        return vectors[:, None].expand(-1, frames, -1)

    def _silence_padding(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self._ends is None:
            return None
        (hidden,) = inputs
        ends = (self._ends * hidden.shape[-1]).round()
        past = torch.arange(hidden.shape[-1], device=self.device)[None] >= ends
        return (hidden.masked_fill(past[:, None], 0.0),)

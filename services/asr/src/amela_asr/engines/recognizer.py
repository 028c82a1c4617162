"""A model in memory that recognises whole batches, whoever gathers them: this server or Triton's."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from amela_common.audio import Clip
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import RequestError

from amela_asr.engine import Capabilities, Options, Recognition

SAMPLE_RATE = 16_000


class Utterance(NamedTuple):
    """A clip at `SAMPLE_RATE` and what is asked of it."""

    clip: Clip
    options: Options


class Recognizer(Protocol):
    """A loaded model. It belongs to one thread."""

    name: str
    """The engine's name."""
    model: str
    """The model as its users call it."""
    fingerprint: str
    warnings: tuple[str, ...]
    capabilities: Capabilities
    max_piece_seconds: float
    device: TorchDevice

    def kind(self, options: Options) -> Hashable:
        """Say which utterances may share a batch: those whose options give equal answers here."""

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        """Recognise a batch of one kind, in order; raises what PyTorch raises."""

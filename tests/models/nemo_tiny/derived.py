"""Models of more families, made in seconds of the committed ones: the encoder and the clips are theirs.

They know the committed clips by heart, which is enough to tell whether two ways of running them agree.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
import torch
from amela_asr.engines.ctc_words import Emission, best_path
from nemo.collections.asr.models import ASRModel, EncDecHybridRNNTCTCBPEModel, EncDecRNNTBPEModel
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from tests.models.nemo_tiny import architectures
from tests.models.nemo_tiny.training import padded, padded_ids

FOLDER = Path(__file__).parent
STEPS = 150


def restore(path: Path) -> Any:
    """Load a checkpoint on the CPU, ready to be used."""
    return ASRModel.restore_from(str(path), map_location="cpu").eval()


def clips() -> list[Tensor]:
    """Read the committed clips: float32[n] at 16 kHz."""
    paths = sorted((FOLDER / "clips").glob("*.flac"))
    return [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]


def with_decoding(source: Path, target: Path, decoding: dict[str, Any]) -> Path:
    """Write a copy of a checkpoint that asks for another way of decoding."""
    model = restore(source)
    with open_dict(model.cfg):
        model.cfg.decoding = {**model.cfg.decoding, **decoding}
    model.save_to(str(target))
    return target


def make_transducers(folder: Path) -> tuple[Path, Path]:
    """Write a plain transducer and a hybrid with the same weights; both say what ctc-bpe hears."""
    ctc = restore(FOLDER / "ctc-bpe.nemo")
    tokenizer = unpack_tokenizer(FOLDER / "ctc-bpe.nemo", folder / "tokenizer")
    torch.manual_seed(0)
    hybrid = EncDecHybridRNNTCTCBPEModel(OmegaConf.create(architectures.hybrid(tokenizer)))
    hybrid.encoder.load_state_dict(ctc.encoder.state_dict())
    hybrid.ctc_decoder.load_state_dict(ctc.decoder.state_dict())
    _learn(hybrid, ctc)
    plain = EncDecRNNTBPEModel(OmegaConf.create(architectures.rnnt(tokenizer)))
    plain.load_state_dict(hybrid.state_dict(), strict=False)
    paths = folder / "rnnt.nemo", folder / "hybrid.nemo"
    for model, path in zip((plain, hybrid), paths, strict=True):
        model.save_to(str(path))
    return paths


def _learn(model: Any, ctc: Any) -> None:
    """Train prediction and joint network on the way through the lattice that a CTC model takes.

    That is maximum likelihood of one alignment, and needs no sum over all of them.
    """
    audio, lengths = padded(clips())
    with torch.no_grad():
        log_probs, frames, _ = ctc(input_signal=audio, input_signal_length=lengths)
        encoded, _ = model(input_signal=audio, input_signal_length=lengths)
    blank = log_probs.shape[-1] - 1
    heard = [
        best_path(row[:count].numpy(), blank) for row, count in zip(log_probs, frames.tolist(), strict=True)
    ]
    targets, target_lengths = padded_ids([[emission.token for emission in emissions] for emissions in heard])
    cells = torch.tensor(
        [
            (row, *cell)
            for row, (emissions, count) in enumerate(zip(heard, frames.tolist(), strict=True))
            for cell in _cells(emissions, count, blank)
        ]
    )
    row, frame, place, wanted = cells.unbind(1)
    states = encoded.transpose(1, 2)[row, frame]
    optimizer = torch.optim.AdamW([*model.decoder.parameters(), *model.joint.parameters()], lr=5e-3)
    for _ in range(STEPS):
        predicted, _, _ = model.decoder(targets=targets, target_length=target_lengths)
        outputs = model.joint.joint(states[:, None], predicted.transpose(1, 2)[row, place][:, None])
        loss = torch.nn.functional.cross_entropy(outputs[:, 0, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"transducer: loss {loss.item():.4f}")


def _cells(emissions: list[Emission], frames: int, blank: int) -> Iterator[tuple[int, int, int]]:
    """Go through the lattice: at each frame and number of labels said, what comes next."""
    labels = {emission.first: emission.token for emission in emissions}
    said = 0
    for frame in range(frames):
        if frame in labels:
            yield frame, said, labels[frame]
            said += 1
        yield frame, said, blank


def unpack_tokenizer(checkpoint: Path, folder: Path) -> Path:
    """Get a checkpoint's tokenizer under the names that NeMo's configurations expect."""
    folder.mkdir(parents=True)
    with tarfile.open(checkpoint) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2].partition("_")[2]
            content = archive.extractfile(member)
            if content is not None and name in ("tokenizer.model", "tokenizer.vocab", "vocab.txt"):
                (folder / name).write_bytes(content.read())
    return folder

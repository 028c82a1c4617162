"""A plain training loop: learning from spoken commands, alone and one after the other."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.models.nemo_tiny.corpus import SAMPLE_RATE, Utterance

BATCH = 16
WARM_UP_STEPS = 40


class Batch(NamedTuple):
    """Audio, float32[batch, samples] with lengths int64[batch], and what is said in it."""

    audio: Tensor
    lengths: Tensor
    texts: list[str]


def train(
    model: torch.nn.Module,
    utterances: list[Utterance],
    loss_of: Callable[[Batch], Tensor],
    steps: int,
    rate: float = 2e-3,
) -> None:
    """Train for so many steps; the learning rate rises, stays, and falls from half way on."""
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    model.train()
    for step, batch in enumerate(_batches(utterances, steps, rng), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / WARM_UP_STEPS, max(0.02, 2 * (1 - step / steps)))
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.3f}", flush=True)
    model.eval()


def padded(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad float32[n] clips with zeros to one length."""
    lengths = torch.tensor([len(clip) for clip in clips])
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths


def padded_ids(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Pad lists of token ids with zeros to one length."""
    lengths = torch.tensor([len(row) for row in rows])
    tensors: list[Any] = [torch.tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths


def _batches(utterances: list[Utterance], steps: int, rng: random.Random) -> Iterator[Batch]:
    done = 0
    while done < steps:
        examples = [_example(utterance, utterances, rng) for utterance in utterances]
        # Neighbours in length waste little on padding; the noise makes other neighbours each time.
        examples.sort(key=lambda example: len(example[0]) + rng.uniform(-8000, 8000))
        groups = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
        rng.shuffle(groups)
        for group in groups[: steps - done]:
            audio, lengths = padded([_disturbed(clip, rng) for clip, _ in group])
            yield Batch(audio, lengths, [text for _, text in group])
            done += 1


def _example(utterance: Utterance, others: list[Utterance], rng: random.Random) -> tuple[Tensor, str]:
    """Put silence around an utterance, and sometimes another one behind it."""
    parts, texts = [_silence(rng, 0.2), torch.from_numpy(utterance.samples)], [utterance.text]
    if rng.random() < 0.25:
        following = rng.choice(others)
        parts += [_silence(rng, 0.8), torch.from_numpy(following.samples)]
        texts.append(following.text)
    return torch.cat([*parts, _silence(rng, 0.2)]), " ".join(texts)


def _silence(rng: random.Random, longest: float) -> Tensor:
    return torch.zeros(round(rng.uniform(0, longest) * SAMPLE_RATE))


def _disturbed(clip: Tensor, rng: random.Random) -> Tensor:
    gain = 10 ** rng.uniform(-0.6, 0.2)
    return clip * gain + torch.randn_like(clip) * 10 ** rng.uniform(-4.5, -2.2)

"""Canary models, made in seconds: a committed encoder, and a decoder that learns the clips by heart.

There is one for each generation that NVIDIA has published: one that takes languages; one that writes
times between its words; and one whose pieces and special tokens share a tokenizer, with a CTC model
beside it that aligns what it writes.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from amela_asr.engine import Word
from amela_asr.engines.ctc_words import best_path, words_of
from nemo.collections.asr.models import EncDecMultiTaskModel
from nemo.collections.common.tokenizers.canary_tokenizer import DEFAULT_TOKENS, CanaryTokenizer
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from tests.models.nemo_tiny import architectures
from tests.models.nemo_tiny.corpus import SAMPLE_RATE, WORDS
from tests.models.nemo_tiny.derived import FOLDER, clips, restore, unpack_tokenizer
from tests.models.nemo_tiny.training import padded, padded_ids

STEPS = 80
FRAME_SECONDS = 0.04
FRAMES = 80
GERMAN = dict(
    zip(
        WORDS,
        (
            *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
            *("ja", "nein", "stopp", "los", "links", "rechts", "start", "spiel"),
        ),
        strict=True,
    )
)
FIRST = ("<|transcribe|>", "<|translate|>", "<|en|>", "<|de|>")
SECOND = (
    *("<|startofcontext|>", "<|emo:undefined|>", "<|en|>", "<|de|>"),
    *("<|itn|>", "<|noitn|>", "<|timestamp|>", "<|notimestamp|>", "<|diarize|>", "<|nodiarize|>"),
)
TIMES = tuple(f"<|{frame}|>" for frame in range(FRAMES))


@dataclass(frozen=True)
class Lesson:
    """What a model is to write for the clip of this number, when it is asked like this."""

    clip: int
    language: str
    timestamp: str
    text: str


def make_canary(folder: Path) -> Path:
    """Write one of the first generation."""
    model = _build("canary", _separate_tokenizers(folder, FIRST))
    _learn(model, [lesson for lesson in _lessons() if lesson.timestamp == "no"])
    return _save(model, folder / "canary.nemo")


def make_canary_flash(folder: Path) -> Path:
    """Write one of the second generation."""
    model = _build("canary2", _separate_tokenizers(folder, (*SECOND, *TIMES)))
    _learn(model, _lessons())
    return _save(model, folder / "canary-flash.nemo")


def make_canary_v2(folder: Path) -> Path:
    """Write one of the third generation, with ctc-bpe as its aligner."""
    model = _build("canary2", _common_tokenizer(folder, SECOND))
    _learn(model, [lesson for lesson in _lessons() if lesson.timestamp == "no"])
    with open_dict(model.cfg):
        model.cfg.restore_timestamps_model = True
    path = _save(model, folder / "canary-v2.nemo")
    with tarfile.open(FOLDER / "ctc-bpe.nemo") as aligner, tarfile.open(path, "a") as archive:
        for member in aligner.getmembers():
            content = aligner.extractfile(member)
            if content is None:
                continue
            name = member.name.removeprefix("./")
            if name.startswith("model_"):
                name = f"timestamps_asr_{name}"
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = member.size
            archive.addfile(entry, io.BytesIO(content.read()))
    return path


def _lessons() -> list[Lesson]:
    said = [json.loads(line)["text_ref"] for line in (FOLDER / "clips.json").read_text().splitlines()]
    lessons = []
    for number, (english, words) in enumerate(zip(said, _words(), strict=True)):
        german = " ".join(GERMAN[word] for word in english.split())
        timed = "".join(f"<|{_frame(word.start)}|> {word.text}<|{_frame(word.end)}|>" for word in words)
        lessons += [
            Lesson(number, "en", "no", english),
            Lesson(number, "de", "no", german),
            Lesson(number, "en", "yes", timed),
        ]
    return lessons


def _words() -> list[tuple[Word, ...]]:
    """Tell where ctc-bpe hears each word of the clips, padded as `transcribe` pads them."""
    model = restore(FOLDER / "ctc-bpe.nemo")
    audio, lengths = padded(_whole_seconds())
    with torch.no_grad():
        log_probs, frames, _ = model(input_signal=audio, input_signal_length=lengths)
    vocabulary = model.decoder.vocabulary
    texts = model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=frames)
    return [
        words_of(best_path(row[:count].numpy(), len(vocabulary)), vocabulary, text.text, FRAME_SECONDS)
        for row, count, text in zip(log_probs, frames.tolist(), texts, strict=True)
    ]


def _whole_seconds() -> list[Tensor]:
    """Read the clips; what is shorter than a second gets silence on both sides, as `transcribe` gives it."""
    result = []
    for clip in clips():
        missing = max(0, SAMPLE_RATE - len(clip))
        result.append(torch.nn.functional.pad(clip, (missing // 2, missing - missing // 2)))
    return result


def _frame(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def _separate_tokenizers(folder: Path, tokens: Sequence[str]) -> dict[str, Any]:
    """Make a tokenizer for each language and one for special tokens."""
    special = folder / f"special-{len(tokens)}"
    CanaryTokenizer.build_special_tokenizer(list(tokens), special)
    languages = {
        "spl_tokens": special,
        "en": unpack_tokenizer(FOLDER / "ctc-bpe.nemo", folder / f"en-{len(tokens)}"),
        "de": _train_tokenizer(folder / f"de-{len(tokens)}", list(GERMAN.values()), ()),
    }
    return {
        "type": "agg",
        "dir": None,
        "langs": {name: {"dir": str(path), "type": "bpe"} for name, path in languages.items()},
        "custom_tokenizer": {
            "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer",
            "tokenizers": None,
        },
    }


def _common_tokenizer(folder: Path, tokens: Sequence[str]) -> dict[str, Any]:
    """Make one tokenizer of everything."""
    path = _train_tokenizer(folder / "common", [*WORDS, *GERMAN.values()], (*DEFAULT_TOKENS, *tokens))
    return {
        "type": "bpe",
        "dir": str(path),
        "custom_tokenizer": {
            "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryBPETokenizer",
        },
    }


def _train_tokenizer(folder: Path, words: list[str], symbols: Sequence[str]) -> Path:
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=200,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        user_defined_symbols=list(symbols),
        minloglevel=2,
    )
    pieces = (folder / "tokenizer.vocab").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(piece.split("\t")[0] for piece in pieces))
    return folder


def _build(prompt_format: str, tokenizer: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = EncDecMultiTaskModel(OmegaConf.create(architectures.canary(prompt_format, tokenizer)))
    model.encoder.load_state_dict(restore(FOLDER / "ctc-bpe.nemo").encoder.state_dict())
    return model


def _learn(model: Any, lessons: list[Lesson]) -> None:
    """Train the decoder; what it attends to is computed once."""
    model.eval()
    audio, lengths = padded(_whole_seconds())
    with torch.no_grad():
        _, _, states, mask = model(input_signal=audio, input_signal_length=lengths)
    rows = torch.tensor([lesson.clip for lesson in lessons])
    dialogues = [_dialogue(model, lesson) for lesson in lessons]
    ids, id_lengths = padded_ids([prompt + answer for prompt, answer in dialogues])
    first = torch.tensor([len(prompt) for prompt, _ in dialogues])
    places = torch.arange(ids.shape[1])
    given = places[None] < id_lengths[:, None]
    asked = (given & (places[None] >= first[:, None]))[:, 1:]
    parameters = [*model.transf_decoder.parameters(), *model.log_softmax.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    for _ in range(STEPS):
        decoded = model.transf_decoder(
            input_ids=ids[:, :-1],
            decoder_mask=given[:, :-1].long(),
            encoder_embeddings=states[rows],
            encoder_mask=mask[rows],
        )
        log_probs = model.log_softmax(hidden_states=decoded)
        loss = torch.nn.functional.nll_loss(log_probs[asked], ids[:, 1:][asked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{model.prompt_format}: loss {loss.item():.4f}")


def _dialogue(model: Any, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Encode prompt and answer."""
    slots = {
        **dict.fromkeys(("itn", "diarize"), "no"),
        **{"decodercontext": "", "emotion": "<|emo:undefined|>", "timestamp": lesson.timestamp},
        **{"source_lang": lesson.language, "target_lang": lesson.language, "task": "asr", "pnc": "yes"},
    }
    asked = {slot: slots[slot] for slot in model.prompt.get_slots("user")}
    answered = {"text": lesson.text, "prompt_language": lesson.language}
    turns = [{"role": "user", "slots": asked}, {"role": "assistant", "slots": answered}]
    encoded = model.prompt.encode_dialog(turns)
    return encoded["context_ids"].tolist(), encoded["answer_ids"].tolist()


def _save(model: Any, path: Path) -> Path:
    model.save_to(str(path))
    return path

"""Makes the tiny checkpoints and the clips beside this file: ``python -m tests.models.nemo_tiny [NAME…]``.

It needs espeak-ng and the environment of ``apptainer/asr.lock``, and takes about ten minutes on two cores.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import soundfile
import torch
from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import ASRModel, EncDecCTCModel, EncDecCTCModelBPE, EncDecRNNTBPEModel
from omegaconf import OmegaConf
from torch import Tensor

from tests.models.nemo_tiny import architectures, corpus, language_model
from tests.models.nemo_tiny.tdt_loss import tdt_loss
from tests.models.nemo_tiny.training import Batch, padded_ids, train

FOLDER = Path(__file__).parent
PIECES = 64
CLIPS = 24


def make_clips() -> None:
    """Write phrases by voices that no model has learnt from, and their manifest."""
    folder = FOLDER / "clips"
    folder.mkdir(exist_ok=True)
    # The first of the unseen utterances are single words: take phrases, and a few of those.
    spoken = corpus.utterances(60, corpus.UNSEEN, seed=11)
    chosen = spoken[:4] + spoken[len(corpus.WORDS) :][: CLIPS - 4]
    lines = []
    for number, utterance in enumerate(chosen):
        path = folder / f"command-{number:02}.flac"
        soundfile.write(path, utterance.samples, corpus.SAMPLE_RATE, subtype="PCM_16")
        entry = {
            "audio_filepath": f"clips/{path.name}",
            "duration": round(len(utterance.samples) / corpus.SAMPLE_RATE, 3),
            "text_ref": utterance.text,
        }
        lines.append(json.dumps(entry))
    (FOLDER / "clips.json").write_text("\n".join(lines) + "\n")


def make_ctc_char() -> None:
    """Train the letters' model, whose encoder the others start from."""
    model = EncDecCTCModel(OmegaConf.create(architectures.ctc_char()))
    letters = {letter: index for index, letter in enumerate(corpus.LETTERS)}
    train(model, _training(), _ctc_loss(model, lambda text: [letters[letter] for letter in text]), steps=900)
    _finish(model, "ctc-char")


def make_ctc_bpe() -> None:
    """Train the CTC model of word pieces."""
    with tempfile.TemporaryDirectory() as folder:
        model = EncDecCTCModelBPE(OmegaConf.create(architectures.ctc_bpe(_tokenizer(Path(folder)))))
        _take_encoder(model)
        train(model, _training(), _ctc_loss(model, model.tokenizer.text_to_ids), steps=300)
        _finish(model, "ctc-bpe")


def make_tdt() -> None:
    """Train the transducer that tells durations."""
    with tempfile.TemporaryDirectory() as folder:
        model = EncDecRNNTBPEModel(OmegaConf.create(architectures.tdt(_tokenizer(Path(folder)))))
        _take_encoder(model)
        train(model, _training(), _tdt_loss(model), steps=300)
        _finish(model, "tdt")


def make_salm() -> None:
    """Train the speech language model."""
    with tempfile.TemporaryDirectory() as folder:
        model = language_model.make(Path(folder), _training(), _restore("ctc-char"))
        language_model.save(model, Path(folder), FOLDER / "salm")
    _report("salm", language_model.transcribe(model, [clip for clip, _ in _unseen()]))


def _ctc_loss(model: Any, ids_of: Callable[[str], list[int]]) -> Callable[[Batch], Tensor]:
    def loss_of(batch: Batch) -> Tensor:
        targets, target_lengths = padded_ids([ids_of(text) for text in batch.texts])
        log_probs, lengths, _ = model(input_signal=batch.audio, input_signal_length=batch.lengths)
        loss: Tensor = model.loss(
            log_probs=log_probs, targets=targets, input_lengths=lengths, target_lengths=target_lengths
        )
        return loss

    return loss_of


def _tdt_loss(model: Any) -> Callable[[Batch], Tensor]:
    def loss_of(batch: Batch) -> Tensor:
        targets, target_lengths = padded_ids([model.tokenizer.text_to_ids(text) for text in batch.texts])
        encoded, lengths = model(input_signal=batch.audio, input_signal_length=batch.lengths)
        predicted, target_lengths, _ = model.decoder(targets=targets, target_length=target_lengths)
        joint = model.joint(encoder_outputs=encoded, decoder_outputs=predicted)
        return tdt_loss(joint, targets, lengths, target_lengths, architectures.TDT_DURATIONS)

    return loss_of


def _training() -> list[corpus.Utterance]:
    return corpus.utterances(900, corpus.KNOWN, seed=7)


def _unseen() -> list[tuple[Tensor, str]]:
    spoken = corpus.utterances(60, corpus.UNSEEN, seed=23)
    return [(torch.from_numpy(utterance.samples), utterance.text) for utterance in spoken]


def _tokenizer(folder: Path) -> Path:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([utterance.text for utterance in _training()]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=PIECES,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        pad_id=-1,
        hard_vocab_limit=False,
    )
    pieces = (folder / "tokenizer.vocab").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(piece.split("\t")[0] for piece in pieces))
    return folder


def _restore(name: str) -> Any:
    return ASRModel.restore_from(str(FOLDER / f"{name}.nemo"), map_location="cpu")


def _take_encoder(model: Any) -> None:
    model.encoder.load_state_dict(_restore("ctc-char").encoder.state_dict())


def _finish(model: Any, name: str) -> None:
    model.save_to(str(FOLDER / f"{name}.nemo"))
    clips = [clip.numpy() for clip, _ in _unseen()]
    _report(name, [hypothesis.text for hypothesis in model.transcribe(clips, batch_size=20, verbose=False)])


def _report(name: str, texts: list[str]) -> None:
    truth = [text for _, text in _unseen()]
    print(f"{name}: word error rate {word_error_rate(texts, truth):.3f} on {len(truth)} unseen utterances")
    for heard, said in zip(texts, truth, strict=True):
        if heard != said:
            print(f"  {said!r} heard as {heard!r}")


MAKERS = {
    "clips": make_clips,
    "ctc-char": make_ctc_char,
    "ctc-bpe": make_ctc_bpe,
    "tdt": make_tdt,
    "salm": make_salm,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    for chosen in sys.argv[1:] or MAKERS:
        MAKERS[chosen]()

"""The tiny SALM: a Qwen3 of random weights that learns to write what the commands' encoder hears."""

import shutil
from pathlib import Path
from typing import Any

import torch
from nemo.collections.common.prompts import PromptFormatter
from nemo.collections.speechlm2.data.salm_dataset import left_collate_vectors
from nemo.collections.speechlm2.models import SALM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config

from tests.models.nemo_tiny import architectures
from tests.models.nemo_tiny.corpus import Utterance
from tests.models.nemo_tiny.training import Batch, padded, train

PROMPT = f"Transcribe the following: {architectures.LOCATOR}"
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
STEPS = 600


def make(llm: Path, utterances: list[Utterance], recognizer: Any) -> Any:
    """Train a SALM; its language model's configuration and tokenizer are left in the folder `llm`."""
    _write_llm(llm, [utterance.text for utterance in utterances])
    model = SALM(architectures.salm(llm))
    model.perception.load_state_dict(recognizer.state_dict(), strict=False)
    dialogue = PromptFormatter.resolve("qwen")(model.tokenizer)

    def loss_of(batch: Batch) -> Tensor:
        encoded = [
            dialogue.encode_dialog(
                [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}]
            )
            for text in batch.texts
        ]
        inputs = model.prepare_inputs(
            {
                "audios": batch.audio,
                "audio_lens": batch.lengths,
                "input_ids": left_collate_vectors([turn["input_ids"] for turn in encoded], model.text_pad_id),
                "loss_mask": left_collate_vectors([turn["mask"] for turn in encoded], False).bool(),
            }
        )
        logits = model(inputs["input_embeds"], attention_mask=inputs["attention_mask"])["logits"]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), inputs["target_ids"].flatten(0, 1), ignore_index=-100
        )

    train(model, utterances, loss_of, STEPS)
    return model


def save(model: Any, llm: Path, folder: Path) -> None:
    """Write everything that loading without a network needs, and nothing of the machine that trained it."""
    shutil.rmtree(folder, ignore_errors=True)
    model.cfg.pretrained_llm = "tiny-qwen3"
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink()
    (folder / "model.safetensors").chmod(0o644)
    for path in llm.glob("*token*"):
        shutil.copy(path, folder)
    (folder / "llm_backbone").mkdir(exist_ok=True)
    shutil.copy(llm / "config.json", folder / "llm_backbone")


def transcribe(model: Any, clips: list[Tensor]) -> list[str]:
    """Transcribe float32[n] clips by NeMo's own generate."""
    audio, lengths = padded(clips)
    prompts = [[{"role": "user", "content": PROMPT}]] * len(clips)
    rows = model.generate(prompts=prompts, audios=audio, audio_lens=lengths, max_new_tokens=32).tolist()
    end = model.text_eos_id
    kept = [row[: row.index(end)] if end in row else row for row in rows]
    return [model.tokenizer.ids_to_text(row).strip() for row in kept]


def _write_llm(folder: Path, texts: list[str]) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # The prompt's words too, often enough to become tokens of their own.
    prompt_words = ["user assistant system Transcribe the following: \n"] * 50
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts + prompt_words, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    Qwen3Config(
        # Room for the audio's place holder, which SALM adds itself.
        vocab_size=384,
        hidden_size=architectures.LLM_WIDTH,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        architectures=["Qwen3ForCausalLM"],
    ).save_pretrained(folder)

"""What NeMo itself makes of clips, one after the other: the truth for our engines."""

import functools
from pathlib import Path
from typing import Any

import torch
from amela_asr.engines.quiet import quiet_import


@functools.cache
def load(path: Path) -> Any:
    """Load a checkpoint as NeMo's documentation does."""
    with quiet_import():
        from nemo.collections.asr.models import ASRModel
        from nemo.collections.speechlm2.models import SALM
    if path.is_dir():
        return SALM.from_pretrained(str(path)).eval()
    return ASRModel.restore_from(str(path), map_location="cpu").eval()


@functools.cache
def transcribe(path: Path, clip: Path) -> str:
    """Transcribe one file."""
    model = load(path)
    if not path.is_dir():
        return str(model.transcribe([str(clip)], batch_size=1, verbose=False)[0].text)
    prompt = [{"role": "user", "content": f"Transcribe the following: {model.audio_locator_tag}"}]
    prompt[0]["audio"] = [str(clip)]  # type: ignore[assignment]
    (row,) = model.generate(prompts=[prompt], max_new_tokens=128).tolist()
    row = row[: row.index(model.text_eos_id)] if model.text_eos_id in row else row
    return str(model.tokenizer.ids_to_text(row)).strip()


def batch_norm_statistics(model: Any) -> list[torch.Tensor]:
    return [value.clone() for name, value in model.state_dict().items() if "running_" in name]

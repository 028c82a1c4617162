"""What NeMo itself makes of clips, one after the other: the truth for our engines."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from amela_asr.engines.quiet import quiet_import
from numpy.typing import NDArray


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
def transcribe(path: Path, clip: Path, **prompt: str) -> str:
    """Transcribe one file; the prompt is Canary's."""
    model = load(path)
    if not path.is_dir():
        (heard,) = model.transcribe([str(clip)], batch_size=1, verbose=False, **prompt)
        best = heard[0] if isinstance(heard, list) else heard
        return str(best.text).strip()
    prompt = [{"role": "user", "content": f"Transcribe the following: {model.audio_locator_tag}"}]
    prompt[0]["audio"] = [str(clip)]  # type: ignore[assignment]
    (row,) = model.generate(prompts=[prompt], max_new_tokens=128).tolist()
    row = row[: row.index(model.text_eos_id)] if model.text_eos_id in row else row
    return str(model.tokenizer.ids_to_text(row)).strip()


def transcribe_samples(path: Path, samples: NDArray[np.float32]) -> str:
    """Transcribe float32[n] at 16 kHz of at least a second."""
    (heard,) = load(path).transcribe([samples], batch_size=1, verbose=False)
    return str(heard.text).strip()

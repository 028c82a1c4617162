"""Let textless be imported where torchaudio is not there.

textless calls one function of torchaudio, ``functional.resample``, on audio of a rate that its encoder does
not take. Torch has builds that torchaudio has none for. A module of that name with that function alone, over
libsoxr, stays in place after the import, because textless looks it up when it is called.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import soxr
import torch

from amela_sts.compat.accommodation import Accommodation


def _resample(waveform: Any, orig_freq: int, new_freq: int) -> Any:
    """Resample float32[..., n] from one rate in Hz to another."""
    rows = waveform.reshape(-1, waveform.shape[-1]).cpu().numpy()
    resampled = soxr.resample(rows.T, orig_freq, new_freq).T
    return torch.from_numpy(resampled.copy()).reshape(*waveform.shape[:-1], -1).to(waveform.device)


def _can_import_torchaudio() -> bool:
    if importlib.util.find_spec("torchaudio") is None:
        return False
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):  # built for another torch
        return False
    return True


@contextmanager
def _held() -> Iterator[None]:
    if "torchaudio" not in sys.modules and not _can_import_torchaudio():
        package, functional = ModuleType("torchaudio"), ModuleType("torchaudio.functional")
        functional.resample = _resample  # type: ignore[attr-defined]
        package.functional = functional  # type: ignore[attr-defined]
        sys.modules.update({"torchaudio": package, "torchaudio.functional": functional})
    yield


ACCOMMODATION = Accommodation(
    name="torchaudio_resample",
    during="import",
    error="No module named 'torchaudio'",
    cause="textless imports torchaudio, which has no build for every torch",
    until="textless resamples without torchaudio",
    held=_held,
)

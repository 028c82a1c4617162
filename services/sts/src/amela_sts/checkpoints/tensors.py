"""Read a torch checkpoint without running anything that it says."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from amela_common.errors import ConfigError

from amela_sts import compat
from amela_sts.checkpoints.integrity import CheckedFile

# What torch's restricted unpickler says when a file names something that it does not know to be harmless.
_NAMES_CODE = re.compile(r"[Uu]nsupported (global|GLOBAL|class).*|Trying to call reduce .*|Can only build .*")


def read_tensors(checked: CheckedFile, path: Path) -> dict[str, Any]:
    """Load a checkpoint's dictionary to the CPU, classes restricted to those that compat names.

    Raises
    ------
    ConfigError
        If it is damaged, is no dictionary, or names anything else, which could run code.
    """
    try:
        with compat.loading():
            state = torch.load(checked.file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The rest of torch's message advises to load everything all the same.
        refused = _NAMES_CODE.search(str(error))
        if refused is None:
            raise ConfigError(f"{path}: not a checkpoint, or a damaged one: {_first_line(error)}") from error
        raise ConfigError(
            f"{path}: refused, as it holds more than tensors and could run code: {refused[0]}"
        ) from error
    # What a damaged file raises is anybody's guess.
    except Exception as error:
        raise ConfigError(f"{path}: not a checkpoint, or a damaged one: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path}: holds a {type(state).__name__}, not a checkpoint's dictionary")
    return state


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

"""Every accommodation of legacy code, and nothing else has any.

`import_legacy` brings fairseq (and textless where it is installed) in, under what their import needs;
`loading` is held while one of their checkpoints is loaded. Neither changes an installed file, and both may
be called any number of times.
"""

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from amela_common.errors import ConfigError

from amela_sts.compat import (
    checkpoint_folder,
    dataclass_defaults,
    integral_floats,
    numpy_aliases,
    safe_globals,
    torchaudio_resample,
    versions,
)

ACCOMMODATIONS = (
    dataclass_defaults.ACCOMMODATION,
    numpy_aliases.ACCOMMODATION,
    torchaudio_resample.ACCOMMODATION,
    checkpoint_folder.ACCOMMODATION,
    integral_floats.ACCOMMODATION,
    safe_globals.ACCOMMODATION,
)

__all__ = ["ACCOMMODATIONS", "faults", "has_textless", "import_legacy", "legacy", "loading"]


def has_textless() -> bool:
    """Tell whether textless is installed."""
    return importlib.util.find_spec("textless") is not None


def faults() -> list[str]:
    """Say of each library that is missing or has the wrong version what to do."""
    found = versions.faults(versions.installed())
    # By its module: a checkout on PYTHONPATH is as good as an installed distribution.
    if importlib.util.find_spec("fairseq") is None:
        found.append("fairseq is missing: pip install --no-deps 'fairseq==0.12.2'")
    return found


@cache
def import_legacy() -> None:
    """Import fairseq, and textless where it is installed.

    Raises
    ------
    ConfigError
        If a version is wrong or missing, with the command that mends it.
    """
    if wrong := faults():
        raise ConfigError("; ".join(wrong))
    with ExitStack() as stack, _quiet():
        for accommodation in ACCOMMODATIONS:
            if accommodation.during == "import":
                stack.enter_context(accommodation.held())
        importlib.import_module("fairseq")
        if has_textless():
            importlib.import_module("textless")


def legacy(module: str) -> Any:
    """Give a module of fairseq, textless or omegaconf, which publish no types, imported as they need it."""
    import_legacy()
    return importlib.import_module(module)


@contextmanager
def loading() -> Iterator[None]:
    """Hold what loading a legacy checkpoint needs."""
    import_legacy()
    with ExitStack() as stack, _quiet():
        for accommodation in ACCOMMODATIONS:
            if accommodation.during == "load":
                stack.enter_context(accommodation.held())
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    # fairseq logs each optional part that it cannot find, and each model's configuration.
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # torch announces the end of the weight norm that these models are made of.
        warnings.simplefilter("ignore", FutureWarning)
        yield

"""Name what fairseq's checkpoints hold besides tensors to torch's restricted unpickler.

Since torch 2.6 `torch.load` refuses every class that it was not told of. These are inert: a dictionary of
labels, old command line arguments, numpy's scalars. Files of numpy 1 name numpy's modules as they were then;
torch compares the names in the file, so both have to be listed.
"""

import argparse
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from amela_sts.compat.accommodation import Accommodation


def allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """List what a checkpoint may name; fairseq must have been imported."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    return [
        argparse.Namespace,
        importlib.import_module("fairseq.data.dictionary").Dictionary,
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
    ]


@contextmanager
def _held() -> Iterator[None]:
    with torch.serialization.safe_globals(allowed()):
        yield


ACCOMMODATION = Accommodation(
    name="safe_globals",
    during="load",
    error="Unsupported global: GLOBAL fairseq.data.dictionary.Dictionary was not an allowed global",
    cause="torch 2.6 and later load weights only, and these checkpoints hold fairseq's and numpy's classes",
    until="the checkpoints are converted to tensors alone",
    held=_held,
)

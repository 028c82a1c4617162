"""Give numpy back the names for Python's types that fairseq of 2021 reads while it is imported.

numpy 1.24 removed ``np.float``, ``np.int`` and ``np.object``. What fairseq still needs of them after its
import lies in data preparation, which no service runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from amela_sts.compat.accommodation import Accommodation

_ALIASES = {"float": float, "int": int, "bool": bool, "object": object}


@contextmanager
def _held() -> Iterator[None]:
    # numpy 2 has a `bool` of its own again.
    missing = {name: kind for name, kind in _ALIASES.items() if name not in vars(np)}
    for name, kind in missing.items():
        setattr(np, name, kind)
    try:
        yield
    finally:
        for name in missing:
            delattr(np, name)


ACCOMMODATION = Accommodation(
    name="numpy_aliases",
    during="import",
    error="module 'numpy' has no attribute 'float'",
    cause="fairseq dd106d9 uses names that numpy 1.24 removed",
    until="fairseq is 0.12.2 or later",
    held=_held,
)

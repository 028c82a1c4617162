"""Let textless be imported by who cannot write where its checkpoints are kept.

Its import makes that folder, ``TEXTLESS_CHECKPOINT_ROOT`` or ``~/.textless``, which fails under a home folder
that is read-only or not there, as in containers. This package finds checkpoints by itself.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amela_sts.compat.accommodation import Accommodation

_VARIABLE = "TEXTLESS_CHECKPOINT_ROOT"


@contextmanager
def _held() -> Iterator[None]:
    named = os.environ.get(_VARIABLE)
    if Path(named or "~/.textless").expanduser().is_dir():
        yield
        return
    os.environ[_VARIABLE] = tempfile.gettempdir()
    try:
        yield
    finally:
        if named is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = named


ACCOMMODATION = Accommodation(
    name="checkpoint_folder",
    during="import",
    error="Read-only file system: '/home/…/.textless'",
    cause="textless makes the folder of its checkpoints when it is imported, whether or not it is used",
    until="textless makes it when it writes a checkpoint",
    held=_held,
)

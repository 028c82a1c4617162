"""What an accommodation of legacy code says about itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Accommodation:
    """One cure for one fault of old code under new libraries.

    Attributes
    ----------
    name
        Its module's name.
    during
        When it is in force: while fairseq and textless are imported, or while a checkpoint is loaded.
        Nothing stays changed afterwards but what the docstring of its module says.
    error
        What goes wrong without it, word for word as far as it is the same everywhere.
    cause
        Why.
    until
        When it may go.
    held
        Makes the context in which it is in force.
    """

    name: str
    during: Literal["import", "load"]
    error: str
    cause: str
    until: str
    held: Callable[[], AbstractContextManager[None]]

"""What a pool and its workers say to each other: pickled messages, each after its length.

The parent sends a `Setup`, then requests, each as a `Work`; while one is worked on, it may send an `Abandon`.
The worker answers the set-up with `Done` or `Failed`, and each piece of work with any number of
`Item` and then one of `Done`, `Failed` and `Broken`.
"""

import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from amela_common.errors import AmelaError


class _Sentinel(Enum):
    CHECKPOINT = "checkpoint"


CHECKPOINT: Final = _Sentinel.CHECKPOINT
"""What a handler yields where it can be stopped; it is not sent."""

Handler = Callable[[Any], Iterator[Any]]
"""Turns a request into items, in a worker."""

Factory = Callable[[], Handler]
"""Makes a worker's handler: loads the engine and tries it out."""

HEADER = struct.Struct("!Q")
"""Length of the message that follows, in bytes."""


@dataclass(frozen=True)
class Setup:
    """How a new worker finds its modules, and its factory, pickled because it needs them."""

    path: list[str]
    factory: bytes


@dataclass(frozen=True)
class Work:
    """A request."""

    request: Any


@dataclass(frozen=True)
class Abandon:
    """Nobody waits for the answer any more. A worker that has just finished does not mind."""


@dataclass(frozen=True)
class Item:
    """One thing that the handler yielded."""

    value: Any


@dataclass(frozen=True)
class Done:
    """The handler has come to its end, or was stopped at a checkpoint."""


@dataclass(frozen=True)
class Failed:
    """The handler, or the factory, raised an error that is meant for the caller."""

    error: AmelaError


@dataclass(frozen=True)
class Broken:
    """The handler, or the factory, raised something else."""

    summary: str
    traceback: str


Command = Setup | Work | Abandon
Reply = Item | Done | Failed | Broken


def encode(message: Command | Reply) -> bytes:
    """Frame a message."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body

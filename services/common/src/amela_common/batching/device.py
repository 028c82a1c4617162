"""The device that computes batches, and the one thread that may touch it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Device(Protocol):
    """What failures on a device mean, and how memory is got back."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether less work at once can succeed."""

    def is_broken(self, error: BaseException) -> bool:
        """Whether nothing can succeed any more in this process."""

    def free_cache(self) -> None:
        """Give back memory that no computation holds."""


class DeviceThread:
    """The thread that everything on a device runs on: models are not made for more than one."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run work after what was given before; a cancelled caller's work is skipped if it has not begun."""
        # wrap_future, other than run_in_executor, takes keywords and passes a cancellation on.
        return await asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._executor.shutdown(wait=False, cancel_futures=True)

"""Batches that fail: halved until what can be computed is, and the rest has its own reason."""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Generic, TypeVar

from amela_common.batching.budget import Budget
from amela_common.batching.device import Device
from amela_common.batching.metrics import BatchMetrics
from amela_common.errors import RequestError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class BrokenDeviceError(Exception):
    """The device is lost to this process."""


@dataclass(frozen=True)
class Sized(Generic[T]):
    """An item and its length in seconds."""

    item: T
    seconds: float


class _Kind(Enum):
    OUT_OF_MEMORY = auto()
    BROKEN = auto()
    REFUSED = auto()
    FAULT = auto()


@dataclass(frozen=True)
class _Failure:
    """A failed computation. It holds no traceback: the frames of one keep the batch's memory."""

    kind: _Kind
    summary: str
    details: str
    refusal: RequestError | None = None


class Recovery(Generic[T, R]):
    """Computes batches whatever happens in them.

    A batch that fails is cut in half and each half tried again, in order, so that an item fails
    only for a reason of its own. The budget learns from batches that did not fit.

    Parameters
    ----------
    compute
        Gives one result for each item, in order. A `RequestError` among the results is that
        item's own failure.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R | RequestError]],
        device: Device,
        budget: Budget,
        metrics: BatchMetrics,
    ) -> None:
        self._compute = compute
        self._device = device
        self._metrics = metrics
        self._budget = budget
        # Highest cost of a batch that fitted.
        self._proved = 0.0
        metrics.budget.set(budget.seconds)

    @property
    def budget(self) -> Budget:
        """What a batch may hold, by all that is known."""
        return self._budget

    def run(self, batch: Sequence[Sized[T]]) -> list[R | RequestError]:
        """Compute a batch.

        Raises
        ------
        BrokenDeviceError
            If the device is lost.
        """
        outcomes: list[R | RequestError] = []
        parts = [batch]
        while parts:
            part = parts.pop()
            result = self._try(part)
            if not isinstance(result, _Failure):
                outcomes.extend(result)
                continue
            if result.kind is _Kind.BROKEN:
                raise BrokenDeviceError(result.summary)
            if result.kind is _Kind.OUT_OF_MEMORY:
                self._make_room(part)
            if len(part) == 1:
                outcomes.append(_reason(result, part[0].seconds))
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return outcomes

    def _try(self, part: Sequence[Sized[T]]) -> Sequence[R | RequestError] | _Failure:
        try:
            results = self._compute([sized.item for sized in part])
            if len(results) != len(part):
                raise RuntimeError(f"{len(results)} results for {len(part)} items")
        except RequestError as error:
            return _Failure(_Kind.REFUSED, error.message, "", error)
        except Exception as error:
            return _Failure(
                self._kind_of(error),
                _summary(error),
                "".join(traceback.format_exception(error)),
            )
        self._learn_that_fits(part)
        return results

    def _learn_that_fits(self, part: Sequence[Sized[T]]) -> None:
        self._proved = max(self._proved, self._cost(part))
        if len(part) > 1 and self._proved > self._budget.seconds:
            # A part of a batch that was made for an earlier budget: the new one is too low.
            self._budget = replace(self._budget, seconds=self._proved)

    def _cost(self, part: Sequence[Sized[T]]) -> float:
        return self._budget.cost(len(part), max(sized.seconds for sized in part))

    def _kind_of(self, error: Exception) -> _Kind:
        if self._device.is_broken(error):
            return _Kind.BROKEN
        return _Kind.OUT_OF_MEMORY if self._device.is_out_of_memory(error) else _Kind.FAULT

    def _make_room(self, part: Sequence[Sized[T]]) -> None:
        """Free what the failed computation left behind, and ask for less from now on."""
        try:
            self._device.free_cache()
        except Exception as error:
            # What broke while the batch was computed may say so only at the next call.
            raise BrokenDeviceError(_summary(error)) from error
        longest = max(sized.seconds for sized in part)
        before = self._budget
        if self._cost(part) <= self._proved:
            # Memory that there once was is no more.
            self._proved = 0.0
        if len(part) > 1:
            fitting = max(self._proved, before.cost(len(part) // 2, longest))
            self._budget = replace(before, seconds=min(before.seconds, fitting))
        self._metrics.out_of_memory.inc()
        self._metrics.budget.set(self._budget.seconds)
        log.warning(
            "out of memory",
            extra={
                "items": len(part),
                "longest_seconds": round(longest, 3),
                "budget_before": round(before.seconds, 1),
                "budget": round(self._budget.seconds, 1),
            },
        )


def _summary(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _reason(failure: _Failure, seconds: float) -> RequestError:
    if failure.refusal is not None:
        return failure.refusal
    if failure.kind is _Kind.OUT_OF_MEMORY:
        return RequestError(
            "OUT_OF_MEMORY",
            f"a piece of {seconds:.1f} s alone does not fit into this device's memory:"
            " use a device with more, or a smaller --max-piece-seconds",
        )
    log.error("a fault in the engine", extra={"fault": failure.summary, "trace": failure.details})
    return RequestError("INTERNAL", f"the engine failed on this piece ({failure.summary}); its log says more")

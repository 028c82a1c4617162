"""Take ``label_rate: 50.0`` where a configuration wants an int.

Checkpoints carry integral floats in fields that fairseq of 2021 declares as int, and OmegaConf's merge
refuses them. Only integral floats, and only of fields that are typed int, are converted: a blanket ``int()``
would turn a dropout of 0.1 into none.
"""

import copy
import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from amela_sts.compat.accommodation import Accommodation


def with_integers(target: Any, source: Any) -> Any:
    """Copy `source` with its integral floats as int where `target`'s node of the same key is an int's.

    Parameters
    ----------
    target
        ``DictConfig`` that `source` will be merged into.
    source
        Mapping, ``DictConfig`` or anything else; only mappings are looked into.
    """
    # Not at the top: `amela-sts doctor` must live to say that omegaconf is missing.
    omegaconf: Any = importlib.import_module("omegaconf")
    DictConfig, OmegaConf = omegaconf.DictConfig, omegaconf.OmegaConf  # noqa: N806 - classes
    if not isinstance(target, DictConfig) or not isinstance(source, Mapping | DictConfig):
        return source
    if target._is_none() or target._is_missing():
        return source
    config = source if isinstance(source, DictConfig) else OmegaConf.create(dict(source))
    if config._is_none() or config._is_missing() or config._is_interpolation():
        return source
    changed: dict[str, int] = {}
    for key in config:
        node, wanted = config._get_node(key), target._get_node(key, validate_access=False)
        if isinstance(node, DictConfig):
            inner = with_integers(wanted, node)
            if inner is not node:
                changed[key] = inner
        elif isinstance(wanted, omegaconf.IntegerNode):
            value = node._value()
            if isinstance(value, float) and value.is_integer():
                changed[key] = int(value)
    if not changed:
        return source
    result = copy.deepcopy(config)
    with omegaconf.open_dict(result), omegaconf.read_write(result):
        for key, value in changed.items():
            result[key] = value
    return result


@contextmanager
def _held() -> Iterator[None]:
    config: Any = importlib.import_module("omegaconf").OmegaConf
    merge = config.merge

    def merge_with_integers(first: Any, *others: Any) -> Any:
        target = config.structured(first) if dataclasses.is_dataclass(first) else first
        return merge(first, *(with_integers(target, other) for other in others))

    config.merge = staticmethod(merge_with_integers)
    try:
        yield
    finally:
        config.merge = staticmethod(merge)


ACCOMMODATION = Accommodation(
    name="integral_floats",
    during="load",
    error="Value '50.0' could not be converted to Integer",
    cause="the checkpoint's configuration has label_rate: 50.0, fairseq dd106d9 declares an int",
    until="fairseq is 0.12.2 or later, which declares a float",
    held=_held,
)

"""Let hydra-core 1.0 and fairseq define their configuration on Python 3.11.

They write ``common: CommonConfig = CommonConfig()``. Python up to 3.10 refused a list, dict or set
as a default; 3.11 refuses whatever cannot be hashed, and dataclasses cannot. The defaults must stay
what they are: fairseq's `hydra_init` reads ``field.default``, which a factory would leave empty.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amela_sts.compat.accommodation import Accommodation


@contextmanager
def _held() -> Iterator[None]:
    strict = dataclasses._get_field  # type: ignore[attr-defined]

    def as_before_311(cls: type, name: str, *rest: Any) -> Any:
        default: Any = getattr(cls, name, None)
        if isinstance(default, dataclasses.Field):
            default = default.default
        kind: Any = type(default)
        refused = kind.__hash__ is None and dataclasses.is_dataclass(kind)
        if not refused:
            return strict(cls, name, *rest)
        kind.__hash__ = object.__hash__
        try:
            return strict(cls, name, *rest)
        finally:
            kind.__hash__ = None

    dataclasses._get_field = as_before_311  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dataclasses._get_field = strict  # type: ignore[attr-defined]


ACCOMMODATION = Accommodation(
    name="dataclass_defaults",
    during="import",
    error="is not allowed: use default_factory",
    cause="Python 3.11 takes no dataclass instance as a default; hydra-core 1.0 and fairseq have them",
    until="hydra-core is 1.3 or later and fairseq uses default_factory",
    held=_held,
)

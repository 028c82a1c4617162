"""Tests of an engine run where it is installed; where it must be, its absence is a failure."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


def absent(stage: str, *modules: str, programs: Sequence[str] = ()) -> str | None:
    """Say why the tests of a stage cannot run here, for want of modules or programs, or None if they can.

    ``AMELA_REQUIRE`` lists, with commas, the stages whose tests must run: what they lack is an error.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    missing += [program for program in programs if shutil.which(program) is None]
    if not missing:
        return None
    reason = f"not installed here: {', '.join(missing)}"
    if stage in os.environ.get("AMELA_REQUIRE", "").split(","):
        raise pytest.UsageError(f"AMELA_REQUIRE lists {stage}, but {reason}")
    return reason


def skipping(reason: str | None) -> Callable[..., Any]:
    """Make a ``pytest_pycollect_makemodule`` for a conftest: its modules are skipped, not even imported."""

    class Skipped(pytest.Module):
        def collect(self) -> Any:
            raise pytest.skip.Exception(str(reason), allow_module_level=True)

    def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        return Skipped.from_parent(parent, path=module_path) if reason else None

    return pytest_pycollect_makemodule

"""Tiny checkpoints in fairseq's format, written by fairseq's own classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ...requirement import absent, skipping

if TYPE_CHECKING:
    from amela_sts.engine import StsEngine

pytest_pycollect_makemodule = skipping(absent("sts", "amela_sts", "torch", "fairseq"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole tiny model: tiny.toml and what it names."""
    from amela_sts.tiny import write_model

    return write_model(tmp_path_factory.mktemp("tiny")).parent


@pytest.fixture(scope="session")
def engine(tiny: Path) -> "StsEngine":
    import torch
    from amela_sts.checkpoints.model_files import ModelFiles
    from amela_sts.engine import StsEngine

    return StsEngine(ModelFiles.find(str(tiny / "tiny.toml"), tiny), torch.device("cpu"), trust=True)


@pytest.fixture
def rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "textless: compares with textless, and is skipped where that is absent"
    )

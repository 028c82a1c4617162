"""Real servers over tiny models, and what a client needs to ask them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ...requirement import absent, skipping

pytest_pycollect_makemodule = skipping(absent("sts", "amela_sts", "torch", "fairseq"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a whole tiny model: tiny.toml and what it names."""
    from amela_sts.tiny import write_model

    yield write_model(tmp_path_factory.mktemp("tiny")).parent

"""A real SLURM, and images by a real Apptainer, for the tests that need them."""

from collections.abc import Iterator

import pytest

from ..requirement import absent
from .images_built import images  # noqa: F401 - a fixture
from .slurm_cluster import PROGRAMS, SlurmCluster, running_cluster


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """One cluster for all tests; `slurm` is what a test asks for."""
    if reason := absent("slurm", programs=PROGRAMS):
        pytest.skip(reason)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """Give the cluster to a test whose own programs find it as users' do; no job outlives the test."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm_cluster.env[name])
    yield slurm_cluster
    slurm_cluster.clear()

"""Find the wrong versions of omegaconf and hydra-core before fairseq fails on them in its own words."""

from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple


class Requirement(NamedTuple):
    """A distribution that only some versions of will do.

    Attributes
    ----------
    series
        How the versions that work begin.
    error
        What fairseq or hydra says under the others.
    cure
        The command that mends it.
    """

    distribution: str
    series: str
    error: str
    cure: str


REQUIREMENTS = (
    Requirement(
        "omegaconf", "2.0.", "cannot import name 'II'", "pip install 'omegaconf==2.0.6', with pip < 24.1"
    ),
    Requirement("hydra-core", "1.0.", "No config source for pkg", "pip install 'hydra-core==1.0.7'"),
)


def installed() -> dict[str, str]:
    """Read the versions of what `REQUIREMENTS` names; what is absent is left out."""
    found = {}
    for requirement in REQUIREMENTS:
        try:
            found[requirement.distribution] = metadata.version(requirement.distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def faults(versions: Mapping[str, str]) -> list[str]:
    """Say of each requirement that is not met what is wrong and what to do."""
    return [
        f"{requirement.distribution} is {versions.get(requirement.distribution, 'missing')}, fairseq needs"
        f' {requirement.series}x (or says "{requirement.error}"): {requirement.cure}'
        for requirement in REQUIREMENTS
        if not versions.get(requirement.distribution, "").startswith(requirement.series)
    ]

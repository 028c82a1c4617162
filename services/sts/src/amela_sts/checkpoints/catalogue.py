"""The checkpoints that textless publishes, and which of them make a model."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from amela_common.errors import ConfigError


@dataclass(frozen=True)
class PublishedFile:
    """A row of ``textless-checkpoints.tsv``, which has the names and checksums of textless's own list."""

    name: str
    file: str
    url: str
    sha256: str


@dataclass(frozen=True)
class PublishedModel:
    """What a model is made of; `files` are in the order in which they are listed to users.

    Attributes
    ----------
    layer
        Of the dense model whose output is quantised, counted from 1.
    vocoder
        Whether there is a HiFi-GAN for these units. The others had Tacotron 2, which is not served.
    """

    name: str
    layer: int
    vocoder: bool
    files: dict[str, PublishedFile]


_LAYERS = {"hubert-base-ls960-layer-9": 9, "hubert-base-ls960": 6, "mhubert-base-vp_mls_cv_8lang": 12}
_VOCODER_PARTS = {"vocoder": "", "vocoder_config": "-config", "speakers": "-speakers", "styles": "-styles"}


@cache
def published_files() -> dict[str, PublishedFile]:
    """Read the table, by name."""
    table = resources.files(__package__) / "textless-checkpoints.tsv"
    with table.open(encoding="utf-8") as file:
        return {row["name"]: PublishedFile(**row) for row in csv.DictReader(file, delimiter="\t")}


@cache
def published_models() -> dict[str, PublishedModel]:
    """Put the files of the table together to models, by name."""
    files = published_files()
    models = {}
    for name in files:
        dense, kmeans, rest = name.partition("-kmeans-")
        if not kmeans or "hifigan" in rest:
            continue
        parts = {"dense": files[dense.removesuffix("-layer-9")], "kmeans": files[name]}
        for part, suffix in _VOCODER_PARTS.items():
            if f"{name}-hifigan{suffix}" in files:
                parts[part] = files[f"{name}-hifigan{suffix}"]
        models[name] = PublishedModel(name, _LAYERS[dense], "vocoder" in parts, parts)
    return models


def published_model(name: str) -> PublishedModel:
    """Find a model by its name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    try:
        return published_models()[name]
    except KeyError:
        known = ", ".join(published_models())
        raise ConfigError(
            f"no model {name!r}: take one of {known}, or a .toml file that names its parts"
        ) from None


def missing_files(model: PublishedModel, root: Path) -> list[PublishedFile]:
    """List those files of a model that are not under `root`."""
    return [file for file in model.files.values() if not (root / file.file).is_file()]

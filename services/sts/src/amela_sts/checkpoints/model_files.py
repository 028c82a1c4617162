"""Where a model's files are: a published one's under a folder, or one's own by a TOML file."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from amela_common.errors import ConfigError

from amela_sts.checkpoints.catalogue import missing_files, published_model

CHECKPOINT_ROOT = Path(os.environ.get("TEXTLESS_CHECKPOINT_ROOT", "~/.textless"))
"""Where textless keeps its checkpoints."""

_PATHS = ("dense", "kmeans", "vocoder", "vocoder_config", "speakers", "styles")


@dataclass(frozen=True)
class ModelFiles:
    """The parts of a model.

    Attributes
    ----------
    name
        As GetInfo has it.
    layer
        Of the dense model whose output is quantised, counted from 1.
    vocoder
        None: there is none, and the model only encodes.
    """

    name: str
    dense: Path
    layer: int
    kmeans: Path
    vocoder: Path | None = None
    vocoder_config: Path | None = None
    speakers: Path | None = None
    styles: Path | None = None

    @classmethod
    def find(cls, model: str, root: Path) -> Self:
        """Find a model by its published name, its files under `root`, or by the path of its TOML file.

        Raises
        ------
        ConfigError
            If something is missing or misspelt.
        """
        if model.endswith(".toml"):
            return cls._from_toml(Path(model))
        published = published_model(model)
        missing = missing_files(published, root)
        if missing:
            raise ConfigError(
                f"{model}: not under --checkpoint-root {root}: {', '.join(file.file for file in missing)};"
                f" `amela-sts stage {model} --to {root}` fetches them where there is a network"
            )
        paths = {part: root / file.file for part, file in published.files.items()}
        return cls(name=model, layer=published.layer, **paths)

    @classmethod
    def _from_toml(cls, path: Path) -> Self:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"--model {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"--model {path}: not TOML: {error}") from error
        unknown = sorted(table.keys() - {*_PATHS, "layer"})
        if unknown:
            raise ConfigError(
                f"--model {path}: no such key: {', '.join(unknown)}; it takes layer, {', '.join(_PATHS)}"
            )
        if not isinstance(table.get("layer"), int) or table["layer"] < 1:
            raise ConfigError(f"--model {path}: layer must be a whole number from 1")
        for key in ("dense", "kmeans"):
            if key not in table:
                raise ConfigError(f"--model {path}: {key} is missing")
        if ("vocoder" in table) != ("vocoder_config" in table):
            raise ConfigError(f"--model {path}: vocoder and vocoder_config go together")
        paths = {}
        for key in _PATHS:
            if key in table:
                paths[key] = path.parent / str(table[key])
                if not paths[key].is_file():
                    raise ConfigError(f"--model {path}: {key} = {str(table[key])!r}: no such file")
        return cls(name=path.stem, layer=table["layer"], **paths)

    @property
    def all_paths(self) -> list[Path]:
        """Every file of the model."""
        return [path for path in (getattr(self, key) for key in _PATHS) if path is not None]

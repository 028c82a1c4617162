"""Short names for models: what serves them, where they lie, what they need."""

import difflib
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from amela_client.cluster.site import expand
from amela_client.cluster.time_limit import parse_time_limit
from amela_client.errors import SetupError

STAGES = ("vad", "asr", "sts")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?", re.ASCII)


@dataclass(frozen=True)
class ModelEntry:
    """A model of the catalogue. What is empty or 0 is left to SLURM and to the server."""

    name: str
    stage: str
    model: str
    """What the server gets as its model: a path, or a name that it knows."""
    engine: str = ""
    gpus: int = 0
    gpu_memory_mib: int = 0
    """What one server needs at least."""
    cpus: int = 0
    memory: str = ""
    """As `sbatch` takes it, like 32G."""
    time: str = ""
    """Time limit, as `sbatch` takes it."""
    binds: tuple[str, ...] = ()
    """What the container must see besides the model."""
    options: tuple[str, ...] = ()
    """Further options of the server."""


Catalogue = Mapping[str, ModelEntry]


def load_catalogue(path: Path | None) -> Catalogue:
    """Read the catalogue in `path`, or the one that comes with this package.

    Raises
    ------
    SetupError
        If it cannot be read or understood; the message names file, line, entry and field.
    """
    if path is None:
        packaged = importlib.resources.files("amela_client") / "slurm" / "models.yaml"
        return parse_catalogue(packaged.read_text("utf-8"), str(packaged))
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SetupError(f"catalogue {path}: {error.strerror}; mend AMELA_CATALOGUE") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"catalogue {path} is not text in UTF-8") from error
    return parse_catalogue(text, str(path))


def find_model(catalogue: Catalogue, name: str, stage: str, variables: Mapping[str, str]) -> ModelEntry:
    """Find what a user calls `name`: an entry, an absolute path, or a name on a hub, which has a slash.

    Parameters
    ----------
    variables
        What ``$NAME`` stands for in an entry: the site's variables.

    Raises
    ------
    SetupError
        If there is no such entry, if it belongs to another stage, or if one of its variables is not set.
    """
    entry = catalogue.get(name)
    if entry is None and "/" in name:
        return ModelEntry(name, stage, name)
    if entry is None:
        near = difflib.get_close_matches(name, catalogue, n=3, cutoff=0.5) or sorted(catalogue)
        raise SetupError(
            f"no model in the catalogue is called {name!r}; there are: {', '.join(near)}. A path needs a"
            f" slash: ./{name}"
        )
    if entry.stage != stage:
        raise SetupError(f"the model {name} is for {entry.stage}, not for {stage}")
    try:
        return replace(
            entry,
            model=expand(entry.model, variables),
            binds=tuple(expand(bind, variables) for bind in entry.binds),
            options=tuple(expand(option, variables) for option in entry.options),
        )
    except ValueError as error:
        raise SetupError(f"the model {name} of the catalogue: {error}; set it in the site file") from error


def parse_catalogue(text: str, source: str) -> Catalogue:
    """Read a catalogue's text; `source` is its name in messages.

    Raises
    ------
    SetupError
        As `load_catalogue` does.
    """
    try:
        # Only its structure: YAML's own reading would make 28800 of 8:00:00.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    # The others are of escapes that are no character, as in "\U99999999".
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise SetupError(f"catalogue {source} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise SetupError(
            f"catalogue {source} is nested too deeply to be read: models have fields, and fields a value or a"
            " list"
        ) from None
    try:
        entries = _fields(root) if root is not None else {}
        return {name: _entry(name, node) for name, node in entries.items()}
    except _FaultError as fault:
        raise SetupError(f"{source}:{fault.line}: {fault}") from fault


class _FaultError(Exception):
    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def _fields(node: yaml.Node) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _FaultError(node, "expected lines of the form 'name: value'")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _FaultError(key, "a name must be a single word: write it as 'name: value'")
        if key.value in fields:
            raise _FaultError(key, f"{key.value!r} is there twice")
        fields[key.value] = value
    return fields


def _entry(name: str, node: yaml.Node) -> ModelEntry:
    if not _NAME.fullmatch(name):
        raise _FaultError(node, f"{name!r} cannot be a short name: use letters, digits, '.', '_' and '-'")
    values: dict[str, object] = {}
    for field, value in _fields(node).items():
        try:
            values[field] = _read(field, value)
        except ValueError as error:
            raise _FaultError(value, f"{name}: {field}: {error}") from error
    for required in ("stage", "model"):
        if required not in values:
            raise _FaultError(node, f"{name}: the field {required} is missing")
    return ModelEntry(name, **values)  # type: ignore[arg-type]


def _read(field: str, node: yaml.Node) -> object:
    if field in {"binds", "options"}:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError("give a list: [ONE, ANOTHER]")
        return tuple(_text(item) for item in node.value)
    text = _text(node)
    if field in {"gpus", "gpu_memory_mib", "cpus"}:
        if not text.isascii() or not text.isdecimal():
            raise ValueError(f"{text!r} is not a whole number")
        return int(text)
    if field == "stage" and text not in STAGES:
        raise ValueError(f"{text!r} is not a stage: {', '.join(STAGES)}")
    if field == "memory" and not _MEMORY.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount of memory, such as 32G")
    if field == "time":
        parse_time_limit(text)
    if field == "model" and text.startswith((".", "~")):
        raise ValueError(f"{text!r} is not an absolute path, which means the same to everybody on every node")
    if field not in ModelEntry.__dataclass_fields__ or field == "name":
        known = [known for known in ModelEntry.__dataclass_fields__ if known != "name"]
        [nearest] = difflib.get_close_matches(field, known, n=1, cutoff=0.0)
        raise ValueError(f"there is no such field; did you mean {nearest}?")
    return text


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("give one value")
    return str(node.value)

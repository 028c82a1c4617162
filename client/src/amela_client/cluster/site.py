"""What is true of a whole site: its partition, folders, modules. One file, which job scripts read too."""

import difflib
import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from amela_client.errors import SetupError

KNOWN = {
    "AMELA_PARTITION": "partition to submit to",
    "AMELA_ACCOUNT": "account that pays",
    "AMELA_QOS": "quality of service",
    "AMELA_SBATCH": "further options of sbatch",
    "AMELA_IMAGES": "folder of the images",
    "AMELA_REGISTRY": "folder where servers register",
    "AMELA_AUDIO_ROOT": "folders of recordings, with colons between them",
    "AMELA_BINDS": "what else to bind into containers, with commas between",
    "AMELA_MODULES": "modules to load, with spaces between",
    "AMELA_MODELS": "folder of staged models, for the catalogue",
    "AMELA_CATALOGUE": "the lab's own catalogue of models",
}
"""What a site file may say of AMELA; other variables are for its own use and for the jobs."""

_DEFAULT = Path("~/.amela/site.env")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.ASCII)
_PART = re.compile(
    r"""
    '(?P<literal>[^']*)'
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | \\(?P<escaped>.)
    | (?P<plain>[^\s'"\\]+)
    """,
    re.VERBOSE,
)
_QUOTED_ESCAPE = re.compile(r'\\([$`"\\])')
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_]\w*)\}|(?P<bare>[A-Za-z_]\w*))", re.ASCII)
# What a shell would do more with than take it as it is.
_SHELL_QUOTED = re.compile(r"`|\$[0-9@*#?!$(-]|\$\{(?![A-Za-z_]\w*\})", re.ASCII)
_SHELL_PLAIN = re.compile(rf"[;&|<>()]|{_SHELL_QUOTED.pattern}", re.ASCII)


@dataclass(frozen=True)
class Site:
    """A site, as its file describes it. Without a file everything is empty.

    Attributes
    ----------
    path
        The file.
    sbatch
        Further options of `sbatch`, split as a shell would.
    variables
        Everything that the file sets, by name.
    """

    path: Path | None = None
    partition: str = ""
    account: str = ""
    qos: str = ""
    sbatch: tuple[str, ...] = ()
    images: Path | None = None
    registry: Path | None = None
    audio_roots: tuple[Path, ...] = ()
    binds: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    catalogue: Path | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def job_variables(self) -> dict[str, str]:
        """What the file sets for programs other than AMELA's."""
        return {name: value for name, value in self.variables.items() if not name.startswith("AMELA_")}


def load_site(path: Path | None = None) -> Site:
    """Read the site file: `path`, or else ``AMELA_SITE``, or ``~/.amela/site.env`` if there is one.

    Raises
    ------
    SetupError
        If it cannot be read or understood, or others could have put it there; the message names file and
        line.
    """
    named = path or (Path(os.environ["AMELA_SITE"]) if os.environ.get("AMELA_SITE") else None)
    file = (named or _DEFAULT).expanduser().absolute()
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError as error:
        if named is None:
            return Site()
        raise SetupError(f"site file {file}: there is none; copy slurm/site.env.example there") from error
    except OSError as error:
        raise SetupError(f"site file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"site file {file} is not text in UTF-8") from error
    refuse_if_open(file)
    return parse_site(text, file, os.environ)


def refuse_if_open(path: Path) -> None:
    """See that nobody else can put something of theirs in the place of `path`, if it lies in ``~/.amela``.

    Of any other folder it is for its users to say whom they share it with.

    Raises
    ------
    SetupError
        Others can write to ``~/.amela``.
    """
    # Path's own raises for a user without a home.
    own = Path(os.path.expanduser("~/.amela"))  # noqa: PTH111
    if own not in path.parents:
        return
    try:
        mode = own.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupError(f"{own} cannot be used: {error.strerror}") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SetupError(
            f"{own} can be written by others, who could put files of their own there; run: chmod go-w {own}"
        )


def registry_folder(site: Site) -> Path:
    """Return where servers register: ``AMELA_REGISTRY``, else the site's, else ``~/.amela/registry``."""
    named = os.environ.get("AMELA_REGISTRY")
    folder = Path(named) if named else site.registry or Path("~/.amela/registry")
    return folder.expanduser().absolute()


def parse_site(text: str, path: Path, environment: Mapping[str, str]) -> Site:
    """Read a site file's text. `environment` is what its variables may refer to besides its own lines.

    Raises
    ------
    SetupError
        As `load_site` does.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, value = _assignment(line, {**environment, **values})
        except ValueError as error:
            raise SetupError(f"{path}:{number}: {error}") from error
        values[name] = value
    return _site(path, values)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put the values of ``$NAME`` and ``${NAME}`` in.

    Raises
    ------
    ValueError
        If one has none.
    """

    def replace(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name not in variables:
            raise ValueError(f"{text!r} uses ${name}, which is not set")
        return variables[name]

    return _VARIABLE.sub(replace, text)


def _assignment(line: str, variables: Mapping[str, str]) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        raise ValueError(f"{line.strip()!r} is not NAME=value: a site file only sets variables")
    name = match["name"]
    if name.startswith("AMELA_") and name not in KNOWN:
        [nearest] = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)
        raise ValueError(f"a site file cannot set {name}; did you mean {nearest}: {KNOWN[nearest]}?")
    return name, _value(match["value"], variables)


def _value(text: str, variables: Mapping[str, str]) -> str:
    value, position = "", 0
    while match := _PART.match(text, position):
        position = match.end()
        if match["literal"] is not None:
            value += match["literal"]
        elif match["quoted"] is not None:
            value += _quoted(match["quoted"], variables)
        elif match["escaped"] is not None:
            value += match["escaped"]
        else:
            value += _plain(match["plain"], variables, first=match.start() == 0)
    rest = text[position:].strip()
    if rest and not (rest.startswith("#") and text[position].isspace()):
        fault = "a quote that is not closed" if rest[0] in "'\"" else "a space: put the value in quotes"
        raise ValueError(f"{text.strip()!r} has {fault}")
    return value


def _quoted(text: str, variables: Mapping[str, str]) -> str:
    value = ""
    # Every other part is a character that was escaped, and stands for itself.
    for index, part in enumerate(_QUOTED_ESCAPE.split(text)):
        if index % 2:
            value += part
            continue
        if found := _SHELL_QUOTED.search(part):
            raise ValueError(_not_plain(found[0], text))
        value += expand(part, variables)
    return value


def _plain(text: str, variables: Mapping[str, str], *, first: bool) -> str:
    if found := _SHELL_PLAIN.search(text):
        raise ValueError(_not_plain(found[0], text))
    home = variables.get("HOME", "~")
    # A shell expands ~ at the start of a value and of each part between colons.
    parts = [
        home + part[1:] if (part == "~" or part.startswith("~/")) and (index or first) else part
        for index, part in enumerate(text.split(":"))
    ]
    return expand(":".join(parts), variables)


def _not_plain(found: str, text: str) -> str:
    return f"{found!r} in {text!r} means more to a shell: only $NAME, ${{NAME}} and quotes are understood"


def _site(path: Path, values: Mapping[str, str]) -> Site:
    def folder(name: str) -> Path | None:
        return _absolute(path, name, values[name]) if values.get(name) else None

    def listed(name: str, separator: str | None) -> list[str]:
        return [item for item in values.get(name, "").split(separator) if item]

    try:
        sbatch = tuple(shlex.split(values.get("AMELA_SBATCH", "")))
    except ValueError as error:
        raise SetupError(f"{path}: AMELA_SBATCH={values['AMELA_SBATCH']!r}: {error}") from error
    return Site(
        path=path,
        partition=values.get("AMELA_PARTITION", ""),
        account=values.get("AMELA_ACCOUNT", ""),
        qos=values.get("AMELA_QOS", ""),
        sbatch=sbatch,
        images=folder("AMELA_IMAGES"),
        registry=folder("AMELA_REGISTRY"),
        audio_roots=tuple(
            _absolute(path, "AMELA_AUDIO_ROOT", item) for item in listed("AMELA_AUDIO_ROOT", ":")
        ),
        binds=tuple(listed("AMELA_BINDS", ",")),
        modules=tuple(listed("AMELA_MODULES", None)),
        catalogue=folder("AMELA_CATALOGUE"),
        variables=MappingProxyType(dict(values)),
    )


def _absolute(path: Path, name: str, value: str) -> Path:
    if not value.startswith("/"):
        raise SetupError(f"{path}: {name}={value}: give an absolute path, which means the same on every node")
    return Path(value)

"""What commands print: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 200


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(plain(value), indent=2))


def plain(value: object) -> object:
    """Make of a value what JSON has: of dataclasses and named tuples objects, of paths text, and so on."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def output_console() -> Console:
    """Return a console on standard output, for tables that programs may read line by line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines for programs are not to be wrapped or cut to fit a screen that is not there.
        console.width = _PLAIN_WIDTH
    return console


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Lay out rows below the names of their columns, without those that are empty in all rows."""
    rows = list(rows)
    used = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    laid_out = Table(*(columns[index] for index in used), box=SIMPLE_HEAD)
    for row in rows:
        # As they are, whether the console knows markup or not.
        laid_out.add_row(*(Text(row[index]) for index in used))
    return laid_out

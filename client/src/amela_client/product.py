"""Results that are files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from amela_client.atomic_file import replacing
from amela_client.errors import OutputError
from amela_client.manifest import Entry
from amela_client.mirror import Mirror


@dataclass(frozen=True)
class Product:
    """The file that each entry's result becomes.

    Attributes
    ----------
    field
        Field of the entry's line that names the file.
    mirror
        Where it goes.
    write
        Writes a result into it.
    """

    field: str
    mirror: Mirror
    write: Callable[[Any, BinaryIO], None]

    def fields(self, entry: Entry) -> dict[str, object]:
        """Return what names the file in the entry's line."""
        return {self.field: str(self.mirror.path(entry))}

    def exists(self, entry: Entry) -> bool:
        """Whether the file is there: it appears whole or not at all."""
        return self.mirror.path(entry).is_file()

    def keep(self, entry: Entry, result: Any) -> None:
        """Write the file.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        path = self.mirror.path(entry)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                self.write(result, file)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}. What is done is kept: mend that and"
                " give the same command again"
            ) from None

"""A digest over everything that results depend on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(*facts: object, files: Iterable[Path] = ()) -> str:
    """Digest facts and the contents of files, both in the order given, to 16 hexadecimal digits."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]

"""Recognises files that are no manifest from how they begin, to say what they are and how to mend them."""

import json
from pathlib import Path
from typing import BinaryIO

from amela_client.errors import ManifestError

_HEAD_BYTES = 1 << 20
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_AUDIO = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_DECODER = json.JSONDecoder()


def refuse_other_formats(file: BinaryIO, path: Path) -> None:
    """Look at the first megabyte of a manifest.

    Raises
    ------
    ManifestError
        The file is empty, compressed, audio, UTF-16, or JSON that is not one object on each line.
    """
    head = file.read(_HEAD_BYTES)
    whole = len(head) < _HEAD_BYTES
    if whole and not head.strip():
        raise ManifestError(f"{path} is empty: a manifest has one entry on each line")
    if head.startswith(_AUDIO):
        raise ManifestError(
            f"{path} is audio, not a manifest; `amela-client manifest build FOLDER -o data.json` makes one "
            "of a folder's recordings"
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise ManifestError(f"{path} is compressed with {name}; decompress it first")
    if _is_utf_16(head):
        raise ManifestError(
            f"{path} is UTF-16, not UTF-8; convert it: "
            f"iconv -f UTF-16 -t UTF-8 {path.name} > utf-8-{path.name}"
        )
    if path.suffix.lower() != ".csv":
        _refuse_spread_json(head.decode("utf-8-sig", errors="replace").lstrip(), whole, path)


def _is_utf_16(head: bytes) -> bool:
    if head.startswith(_UTF_16):
        return True
    # Without a byte order mark, ASCII shows as pairs of a character and a zero.
    zeros = [byte == 0 for byte in head[:4]]
    return zeros in ([True, False] * 2, [False, True] * 2)


def _refuse_spread_json(text: str, whole: bool, path: Path) -> None:
    """Refuse a top-level array, and values spread over lines; leave all else to the reader of lines."""
    first, _, rest = text.partition("\n")
    kind = {"[": "one JSON array", "{": "JSON objects spread over several lines"}.get(first[:1])
    if kind is None:
        return
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        opens = first.strip() in ("[", "{") or (first.startswith("[") and not whole)
        spread = opens and not _is_object(rest.lstrip().partition("\n")[0])
    else:
        alone = isinstance(value, list) and not text[end:].strip()
        spread = alone or end > len(first)
    if spread:
        query = "'.[]'" if first.startswith("[") else "."
        raise ManifestError(
            f"{path} is {kind}; a manifest has one object on each line: "
            f"jq -c {query} {path.name} > lines-{path.name}"
        )


def _is_object(line: str) -> bool:
    try:
        return isinstance(_DECODER.decode(line), dict)
    except (ValueError, RecursionError):
        return False

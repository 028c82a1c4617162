"""Whether the pages of an Ogg file (RFC 3533) at both of its ends are whole.

FFmpeg passes over a damaged page. Amid others this leaves a gap in the time stamps; but without the
first page of audio a recording seems to begin later, and without one of the last ones to end earlier.
"""

import os
import zlib
from typing import BinaryIO, NamedTuple

LARGEST = 27 + 255 + 255 * 255
"""Bytes of a page at most: a header, as many lengths of 0 to 255 as its last byte says, then those."""

_MAGIC = b"OggS\0"
_MOST_FIRST_PAGES = 64
"""Pages looked at for the first one with audio: pictures can make the headers long."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    size: int
    stream: bytes
    is_last: bool
    has_audio: bool


def begins_whole(file: BinaryIO) -> bool:
    """Whether all is well up to the first page with audio of each stream; True for any other file."""
    size = file.seek(0, os.SEEK_END)
    if _read(file, 0, len(_MAGIC)) != _MAGIC:
        return True
    position = 0
    silent: set[bytes] = set()
    heard: set[bytes] = set()
    for _ in range(_MOST_FIRST_PAGES):
        page = _page(_read(file, position, LARGEST))
        if page is None:
            return False
        (heard if page.has_audio else silent).add(page.stream)
        position += page.size
        if position == size or silent <= heard:
            return True
    return True


def ends_whole(file: BinaryIO) -> bool:
    """Whether all is well with the pages at the end, of which it reads at least two."""
    size = file.seek(0, os.SEEK_END)
    rest = _read(file, max(0, size - 3 * LARGEST), size)
    rest = rest[max(0, rest.find(_MAGIC)) :]
    ended = False
    while rest:
        page = _page(rest)
        if page is None:
            # Something may follow the end, a tag for example, but no further page.
            return ended and _MAGIC not in rest
        ended = page.is_last
        rest = rest[page.size :]
    return True


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    content = b""
    # A disk may give less at a time than it has.
    while len(content) < count and (more := file.read(count - len(content))):
        content += more
    return content


def _page(content: bytes) -> _Page | None:
    """Read the page that `content` begins with; None if it is damaged."""
    header = content[: 27 + content[26]] if len(content) > 26 else b""
    size = len(header) + sum(header[27:])
    if not header.startswith(_MAGIC) or size > len(content):
        return None
    if _checksum(header[:22] + bytes(4) + content[26:size]) != int.from_bytes(header[22:26], "little"):
        return None
    # The position of headers is 0, and -1 that of a page in which no packet ends.
    position = int.from_bytes(header[6:14], "little", signed=True)
    return _Page(size, stream=header[14:18], is_last=bool(header[5] & 4), has_audio=position > 0)


def _checksum(page: bytes) -> int:
    # zlib's CRC-32 has the same polynomial, but turns bits around and inverts them before and after.
    turned = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)

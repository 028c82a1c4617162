"""What a file's own structure says about where its samples lie.

Decoders take a file that was cut short for a shorter recording. Its header
knows better, and reading that costs a few bytes.
"""

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from amela_common.audio.ogg_pages import LARGEST

MAX_CHUNKS = 4096
"""Chunks looked at before the samples of a file are given up as not found."""


class Extent(NamedTuple):
    """Bytes of a file in which its samples lie."""

    start: int
    end: int | None
    """None: the header tells nothing, or too little; the samples go on to the end of the file."""


def sample_extent(file: BinaryIO) -> Extent | None:
    """Read where the samples lie, as the header promises it, be the file that long or not.

    Returns
    -------
    Extent | None
        None for containers that do not say, and for headers that make no sense.
    """
    size = file.seek(0, os.SEEK_END)
    head = _read(file, 0, 12)
    for magic, extent in _CONTAINERS:
        if re.match(magic, head, re.DOTALL):
            return extent(file, size)
    return None


def mp3_counts_frames(file: BinaryIO) -> bool:
    """Whether an MP3's first frame is a Xing or Info header that counts its frames."""
    head = _read(file, 0, 10)
    first = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # The size of an ID3v2 tag has seven bits in each byte.
        first = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    header = re.search(rb"(?:Xing|Info)...(.)", _read(file, first, 64), re.DOTALL)
    return header is not None and header[1][0] & 1 == 1


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


@dataclass(frozen=True)
class _Chunks:
    """How a container strings its chunks together, and which of them holds the samples."""

    samples: bytes
    header: str = "<4sI"
    first: int = 12
    alignment: int = 2
    counts_header: bool = False
    preface: int = 0
    """Bytes of the chunk before the first sample."""

    def extent(self, file: BinaryIO, size: int) -> Extent | None:
        position = self.first
        header_size = struct.calcsize(self.header)
        long_length = 0
        name = b""
        for _ in range(MAX_CHUNKS):
            header = _read(file, position, header_size)
            if position > size:
                return Extent(0, position) if name in _FORMATS else None
            if len(header) < header_size:
                break
            name, length = struct.unpack(self.header, header)
            position += header_size
            length -= header_size if self.counts_header else 0
            if name == b"ds64":
                # RF64 (EBU Tech 3306) keeps here what does not fit into the header of "data".
                long_length = int.from_bytes(_read(file, position + 8, 8), "little")
            if name == self.samples:
                if length == _OPEN and long_length:
                    return Extent(position + self.preface, position + long_length)
                return self._promise(file, size, position, length)
            if length < 0 or not _is_name(name):
                return None
            position += length + -length % self.alignment
        return Extent(size, size)

    def _promise(self, file: BinaryIO, size: int, position: int, length: int) -> Extent:
        end: int | None = position + length
        if self._is_placeholder(length):
            end = size if position + length >= size else None
        elif length == 0 and position < size and not self._is_chunk(file, position, size):
            end = None
        return Extent(position + self.preface, end)

    def _is_placeholder(self, length: int) -> bool:
        # What writers on a pipe put: FFmpeg and LAME 2³² - 1, SoX and arecord 2³¹, less their headers.
        narrow = self.header.endswith("I")
        return length < 0 or (narrow and (length > _OPEN - 4096 or 0 <= 2**31 - length < 8192))

    def _is_chunk(self, file: BinaryIO, position: int, size: int) -> bool:
        header = _read(file, position, struct.calcsize(self.header))
        if len(header) < struct.calcsize(self.header):
            return False
        name, length = struct.unpack(self.header, header)
        return _is_name(name) and position + len(header) + length <= size


def _is_name(name: bytes) -> bool:
    return name[:4].isascii() and name[:4].decode().isprintable()


_OPEN = 2**32 - 1
_FORMATS = (b"fmt ", b"COMM")
"""Chunks that are never without their content, unlike those of writers that forget to pad odd lengths."""


def _au(file: BinaryIO, size: int) -> Extent | None:
    header = _read(file, 4, 8)
    start, length = int.from_bytes(header[:4]), int.from_bytes(header[4:])
    return Extent(start, None if length == _OPEN else start + length)


def _nist(file: BinaryIO, size: int) -> Extent | None:
    text = _read(file, 0, 4096).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S{1,32})", text, re.MULTILINE))
    start = re.match(r"NIST_1A\n\s*(\d{1,9})\n", text)
    try:
        length = int(fields["sample_count"]) * int(fields["channel_count"]) * int(fields["sample_n_bytes"])
    except (KeyError, ValueError):
        return None
    if start is None or fields.get("sample_coding", "pcm") not in ("pcm", "ulaw", "alaw"):
        return None
    return Extent(int(start[1]), int(start[1]) + length)


def _ogg(file: BinaryIO, size: int) -> Extent | None:
    tail_start = max(0, size - LARGEST)
    tail = _read(file, tail_start, size - tail_start)
    place = tail.rfind(b"OggS\0")
    if place < 0:
        return None
    page = tail[place : place + 27 + 255]
    lengths = page[26] if len(page) > 26 else 1
    return Extent(0, tail_start + place + 27 + lengths + sum(page[27 : 27 + lengths]))


def _matroska(file: BinaryIO, size: int) -> Extent | None:
    # RFC 8794: an EBML header, then one Segment with everything in it.
    position = 4
    for name in (b"", b"\x18\x53\x80\x67"):
        head = _read(file, position, len(name) + 8)
        if not head.startswith(name) or len(head) < len(name) + 8:
            return None
        width = 9 - head[len(name)].bit_length()
        length = int.from_bytes(head[len(name) : len(name) + width]) & ((1 << 7 * width) - 1)
        if width > 8 or length == (1 << 7 * width) - 1:
            return None
        position += len(name) + width + length
    return Extent(0, position)


def _mp4(file: BinaryIO, size: int) -> Extent | None:
    # ISO/IEC 14496-12: boxes in a row; a length of 1 stands in for 64 bits that follow, 0 for the rest.
    position = 0
    for _ in range(MAX_CHUNKS):
        header = _read(file, position, 16)
        if len(header) < 8 or header[4:8] not in _MP4_BOXES:
            return None
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        if length < 8:
            return None
        position += length
        if position > size:
            return Extent(0, position)
    return None


_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"styp", b"uuid"}

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"

_CONTAINERS: tuple[tuple[bytes, Callable[[BinaryIO, int], Extent | None]], ...] = (
    (b"(RIFF|RF64|BW64)....WAVE", _Chunks(b"data").extent),
    (b"RIFX....WAVE", _Chunks(b"data", ">4sI").extent),
    (b"FORM....AIF[FC]", _Chunks(b"SSND", ">4sI", preface=8).extent),
    (b"caff", _Chunks(b"data", ">4sq", first=8, alignment=1, preface=4).extent),
    (b"riff\x2e\x91\xcf\x11", _Chunks(_W64_DATA, "<16sq", first=40, alignment=8, counts_header=True).extent),
    (b"\\.snd", _au),
    (b"NIST_1A", _nist),
    (b"OggS", _ogg),
    (b"\x1a\x45\xdf\xa3", _matroska),
    (b"....ftyp", _mp4),
)

"""How long a recording is, as far as a few bytes at its start tell."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

# PCM, IEEE float, A-law, µ-law, extensible: formats whose blocks are one sample of each channel.
_PLAIN_FORMATS = (0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE)
_STREAMINFO_BYTES = 34


def duration(path: Path) -> float | None:
    """Return the length of a WAV or FLAC file in seconds, or None where only a decoder can tell.

    WAV means RIFF, RF64 and BW64 (EBU Tech 3306) with uncompressed samples; FLAC starts with its STREAMINFO
    block (RFC 9639, section 8.2). What a WAV header promises beyond the end of the file is not counted.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic in (b"RIFF", b"RF64", b"BW64"):
            return _wav_duration(file)
        if magic == b"fLaC":
            return _flac_duration(file)
    return None


def _wav_duration(file: BinaryIO) -> float | None:
    file_size = os.fstat(file.fileno()).st_size
    if file.read(8)[4:] != b"WAVE":
        return None
    bytes_per_second = 0
    long_size = None
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        start = file.tell()
        if name == b"fmt ":
            fields = file.read(16)
            if len(fields) < 16:
                return None
            kind, _, rate, _, block, _ = struct.unpack("<HHIIHH", fields)
            if kind not in _PLAIN_FORMATS:
                return None
            bytes_per_second = rate * block
        elif name == b"ds64":
            fields = file.read(16)
            long_size = struct.unpack("<QQ", fields)[1] if len(fields) == 16 else None
        elif name == b"data":
            if long_size is not None and size == 0xFFFF_FFFF:
                size = long_size
            size = min(size, file_size - start)
            return size / bytes_per_second if bytes_per_second and size else None
        # Chunks start at even places.
        file.seek(start + size + size % 2)
    return None


def _flac_duration(file: BinaryIO) -> float | None:
    block = file.read(4 + _STREAMINFO_BYTES)
    if len(block) < 4 + _STREAMINFO_BYTES or block[0] & 0x7F != 0:
        return None
    # 20 bits of sample rate, 3 of channels, 5 of sample width, 36 of the number of samples; 0 is unknown.
    packed = int.from_bytes(block[14:22])
    rate, samples = packed >> 44, packed & 0xF_FFFF_FFFF
    return samples / rate if rate and samples else None

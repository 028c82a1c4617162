"""Finding the decoder for a recording."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from amela_common.audio.containers import Extent, sample_extent
from amela_common.audio.decoder import Decoder
from amela_common.audio.libav import LibavDecoder
from amela_common.audio.sndfile import SndfileDecoder
from amela_common.audio.source import AudioSource

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are believed, in Hz. A header can claim any."""


@contextmanager
def open_decoder(file: BinaryIO, source: AudioSource) -> Iterator[Decoder]:
    """Find out what a file is, and open the decoder for it.

    libsndfile is for linear, companded and FLAC samples. It reads MP3 and Ogg
    too, but leaves out most of an MP3 without a Xing header, all that follows
    the first stream of a chained Ogg, and Opus that was never closed, and it
    writes to stderr; so those are for FFmpeg, as is what libsndfile cannot read.

    Raises
    ------
    RequestError
        AUDIO_EMPTY, AUDIO_TRUNCATED, AUDIO_CORRUPT, AUDIO_UNSUPPORTED, AUDIO_NO_SUCH_CHANNEL;
        the decoder's `seek` and `read` raise the second and third.
    """
    head = file.read(12)
    extent = sample_extent(file)
    if extent is not None:
        _check(extent, file, source)
    decoder: Decoder | None = None
    # Where a header tells too little, libsndfile believes it, and FFmpeg reads on.
    if _is_for_libsndfile(head) and (extent is None or extent.end is not None):
        file.seek(0)
        decoder = SndfileDecoder.open(file, source)
    if decoder is None:
        file.seek(0)
        decoder = LibavDecoder.open(file, source)
    if decoder is None:
        raise (
            source.error("AUDIO_CORRUPT", "has a header that no decoder understands; copy it again")
            if _is_audio(head)
            else source.error("AUDIO_UNSUPPORTED", "is not audio, or of a kind that no decoder here reads")
        )
    try:
        if not MIN_RATE <= decoder.sample_rate <= MAX_RATE:
            raise source.error("AUDIO_UNSUPPORTED", f"claims a sample rate of {decoder.sample_rate:,} Hz")
        if source.channel is not None and source.channel >= decoder.channels:
            raise source.error(
                "AUDIO_NO_SUCH_CHANNEL",
                f"has no channel {source.channel}; it has {decoder.channels}, counted from 0",
                channels=str(decoder.channels),
            )
        yield decoder
    finally:
        decoder.close()


def _check(extent: Extent, file: BinaryIO, source: AudioSource) -> None:
    size = file.seek(0, os.SEEK_END)
    end = size if extent.end is None else extent.end
    if extent.start >= min(size, end):
        raise source.error("AUDIO_EMPTY", "has a header, but no samples")
    if end > size:
        raise source.error(
            "AUDIO_TRUNCATED", f"ends after {size:,} bytes, and its header promises {end:,}; copy it again"
        )


def _is_for_libsndfile(head: bytes) -> bool:
    match head[:4], head[8:]:
        case (b"RIFF" | b"RIFX" | b"RF64" | b"BW64", b"WAVE") | (b"FORM", b"AIFF" | b"AIFC"):
            return True
        case (b"fLaC" | b"caff" | b".snd" | b"NIST" | b"riff", _):
            return True
    return False


def _is_audio(head: bytes) -> bool:
    return (
        _is_for_libsndfile(head)
        or head.startswith((b"OggS", b"ID3", b"\x1a\x45\xdf\xa3"))
        or head[4:8] == b"ftyp"
    )

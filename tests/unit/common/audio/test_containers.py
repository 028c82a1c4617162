import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from amela_common.audio.containers import MAX_CHUNKS, Extent, mp3_counts_frames, sample_extent
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Write = Callable[..., bytes]
Wav = Callable[..., bytes]

SECOND = np.zeros(16_000, np.float32)


def extent(content: bytes) -> Extent | None:
    return sample_extent(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"])
def test_a_whole_file_holds_what_its_header_promises(kind: str, write: Write) -> None:
    content = write(SECOND, kind, "PCM_16")
    found = extent(content)
    assert found is not None and found.end is not None
    assert found.end == len(content)
    assert found.end - found.start == 32_000


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "OGG"])
def test_one_byte_less_is_noticed(kind: str, write: Write) -> None:
    content = write(SECOND, kind)
    found = extent(content[:-1])
    assert found is not None and found.end == len(content)


@pytest.mark.parametrize(
    ("container", "codec"), [("ipod", "aac"), ("webm", "libopus"), ("matroska", "flac"), ("ogg", "libopus")]
)
def test_one_byte_less_of_what_ffmpeg_writes_is_noticed(
    container: str, codec: str, speech: Samples, encode: Write
) -> None:
    content = encode(speech[:32_000], container, codec)
    whole = extent(content)
    assert whole is None or whole.end == len(content)
    found = extent(content[:-1])
    assert found is not None and found.end == len(content)


def test_chunks_before_the_samples_are_passed_over(wav: Wav) -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO.\0"
    assert extent(wav(bytes(100), before=odd)) == Extent(44 + len(odd), 144 + len(odd))


def test_a_chunk_whose_odd_length_was_not_padded_proves_nothing(wav: Wav) -> None:
    assert extent(wav(bytes(100), before=b"LIST" + struct.pack("<I", 5) + b"INFO.")) is None


def test_a_big_endian_wav_is_read_as_such(wav: Wav) -> None:
    header = b"RIFX" + struct.pack(">I", 4) + b"WAVE" + b"data" + struct.pack(">I", 300)
    assert extent(header + bytes(10)) == Extent(20, 320)


@pytest.mark.parametrize(
    "size", [0xFFFF_FFFF, 0xFFFF_FFFF - 36, 0x7FFF_F000, 0x8000_0000], ids=lambda size: f"{size:x}"
)
def test_a_length_that_a_writer_on_a_pipe_left_open_is_no_promise(size: int, wav: Wav) -> None:
    assert extent(wav(bytes(100), size=size)) == Extent(44, 144)
    assert extent(wav(b"", size=size)) == Extent(44, 44)


def test_a_length_of_zero_before_samples_tells_nothing(wav: Wav) -> None:
    assert extent(wav(bytes(100), size=0)) == Extent(44, None)


def test_a_recording_may_be_longer_than_its_header_can_tell(tmp_path: Path, wav: Wav) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(b"", size=0x7FFF_F000))
    with path.open("r+b") as file:
        file.truncate(2**31)
        assert sample_extent(file) == Extent(44, None)


def test_no_samples_before_another_chunk_are_no_samples(wav: Wav) -> None:
    chunk = b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert extent(wav(b"", after=chunk)) == Extent(44, 44)


def test_an_rf64_keeps_its_length_elsewhere() -> None:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, 2**40, 0, 0)
    header = (
        b"RF64" + struct.pack("<I", 0xFFFF_FFFF) + b"WAVE" + ds64 + b"data" + struct.pack("<I", 0xFFFF_FFFF)
    )
    assert extent(header + bytes(100)) == Extent(len(header), len(header) + 2**40)


def test_a_header_that_was_cut_promises_the_rest_of_it(wav: Wav) -> None:
    assert extent(wav()[:30]) == Extent(0, 36)
    assert extent(wav()[:36]) == Extent(36, 36)


def test_a_compressed_nist_file_does_not_tell_its_size() -> None:
    fields = "channel_count -i 1\nsample_count -i 16000\nsample_n_bytes -i 2\n"
    header = f"NIST_1A\n   1024\n{fields}".encode()
    assert extent(header) == Extent(1024, 33_024)
    assert extent(header + b"sample_coding -s26 pcm,embedded-shorten-v2.00\n") is None
    assert extent(b"NIST_1A\n   1024\nsample_count -i 16000\n") is None


def test_a_matroska_file_written_live_has_no_length(speech: Samples, encode: Write) -> None:
    assert extent(encode(speech[:32_000], "webm", "libopus", live="1")) is None


def test_the_search_for_samples_ends(wav: Wav) -> None:
    chunks = b"junk\0\0\0\0" * (MAX_CHUNKS + 10)
    assert extent(wav(before=chunks)) == Extent(len(wav(before=chunks)), len(wav(before=chunks)))


def test_an_mp3_tells_whether_it_counts_its_frames(speech: Samples, encode: Write) -> None:
    counted = encode(speech[:32_000], "mp3", "libmp3lame", id3v2_version="0")
    not_counted = encode(speech[:32_000], "mp3", "libmp3lame", id3v2_version="0", write_xing="0")
    tag = b"ID3\4\0\0\0\0\1\x48" + bytes(200)
    for prefix in (b"", tag):
        assert mp3_counts_frames(io.BytesIO(prefix + counted))
        assert not mp3_counts_frames(io.BytesIO(prefix + not_counted))
    assert not mp3_counts_frames(io.BytesIO(b"ID3"))


MAGICS = [
    b"RIFF....WAVE",
    b"RF64....WAVE",
    b"RIFX....WAVE",
    b"FORM....AIFF",
    b"caff",
    b"riff\x2e\x91\xcf\x11",
    b".snd",
    b"NIST_1A\n",
    b"OggS\0",
    b"\x1a\x45\xdf\xa3",
    b"....ftyp",
]


@given(st.sampled_from(MAGICS), st.binary(max_size=400))
def test_no_header_makes_the_search_fail(magic: bytes, rest: bytes) -> None:
    found = extent(magic + rest)
    assert found is None or found.start >= 0

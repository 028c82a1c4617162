import io
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
from amela_common.audio.ogg_pages import begins_whole, ends_whole
from amela_common.errors import RequestError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Read = Callable[..., Samples]
Write = Callable[..., bytes]
Encode = Callable[..., bytes]
Refused = Callable[..., AbstractContextManager[None]]

EOS = 4


def pages_of(content: bytes) -> list[tuple[int, int]]:
    """Start and end of each page."""
    pages, start = [], 0
    while start < len(content):
        lengths = content[start + 27 : start + 27 + content[start + 26]]
        pages.append((start, start + 27 + len(lengths) + sum(lengths)))
        start = pages[-1][1]
    return pages


@pytest.fixture(scope="module")
def oggs(speech: Samples, write: Write, encode: Encode) -> dict[str, bytes]:
    ten = speech[:160_000]
    return {
        "Vorbis": write(ten, "OGG", "VORBIS"),
        "Opus": encode(ten, "ogg", "libopus"),
        "FLAC": encode(ten, "ogg", "flac"),
        "Opus in short pages": encode(ten, "ogg", "libopus", page_duration="300000"),
    }


KINDS = ["Vorbis", "Opus", "FLAC", "Opus in short pages"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_bit_in_any_page_is_noticed_or_does_no_harm(
    kind: str, oggs: dict[str, bytes], read: Read
) -> None:
    content = oggs[kind]
    pages = pages_of(content)
    whole = read(content)
    assert len(pages) >= 4
    for number, (start, end) in enumerate(pages):
        # The capture pattern, flags, position, stream, checksum, lengths, and audio.
        places = [start + 2, start + 5, start + 8, start + 15, start + 23, start + 26, start + 27]
        for place in [*places, (start + end) // 2, end - 1]:
            damaged = bytearray(content)
            damaged[place] ^= 1
            try:
                samples = read(bytes(damaged))
            except RequestError as error:
                assert error.reason in ("AUDIO_CORRUPT", "AUDIO_TRUNCATED", "AUDIO_UNSUPPORTED")
            else:
                assert np.array_equal(samples, whole), f"page {number} of {len(pages)}, {place - start}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_page_of_audio_and_the_last_full_one_are_not_passed_over(
    kind: str, oggs: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = oggs[kind]
    pages = pages_of(content)
    first = next(start for start, _ in pages if any(content[start + 6 : start + 14]))
    for place, where in ((first, "at its beginning"), (pages[-2][0], "near its end")):
        damaged = bytearray(content)
        damaged[place + 40] ^= 1
        with refused("AUDIO_CORRUPT", match=where):
            read(bytes(damaged))


def test_damage_at_the_end_does_not_matter_to_a_stretch_before_it(oggs: dict[str, bytes], read: Read) -> None:
    content = bytearray(oggs["Opus"])
    content[-1] ^= 1
    assert np.array_equal(read(bytes(content), duration=3.0), read(oggs["Opus"], duration=3.0))


def test_a_recording_that_begins_in_the_middle_of_a_stream_is_read(
    oggs: dict[str, bytes], read: Read
) -> None:
    content = oggs["Opus"]
    pages = pages_of(content)
    headers, audio = pages[1][1], pages[5][0]
    assert len(read(content[:headers] + content[audio:])) > 16_000


def test_a_tag_after_the_end_of_an_ogg_does_not_matter(oggs: dict[str, bytes], read: Read) -> None:
    for tail in (b"TAG" + bytes(125), bytes(1000)):
        assert np.array_equal(read(oggs["Vorbis"] + tail), read(oggs["Vorbis"]))


def test_what_follows_a_stream_without_an_end_is_damage(
    oggs: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = oggs["Vorbis"]
    last = pages_of(content)[-1][0]
    assert content[last + 5] & EOS
    assert len(read(content[:last])) > 100_000
    with refused("AUDIO_CORRUPT", match="near its end"):
        read(content[:last] + b"TAG" + bytes(125))


def test_both_ends_are_looked_at_in_files_of_any_length(oggs: dict[str, bytes]) -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    content = oggs["Opus"]
    middle = pages_of(content)[3:-1]
    audio = content[middle[0][0] : middle[-1][1]]
    file = Counting(content[: middle[0][0]] + 100 * audio + content[middle[-1][1] :])
    assert begins_whole(file) and ends_whole(file)
    assert file.count < 500_000 < len(file.getvalue())


@given(st.sampled_from([b"", b"OggS\0"]), st.binary(max_size=200))
def test_nothing_makes_the_search_fail(magic: bytes, rest: bytes) -> None:
    file = io.BytesIO(magic + rest)
    assert begins_whole(file) in (True, False)
    assert ends_whole(file) in (True, False)

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from amela_common.errors import RequestError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Read = Callable[..., Samples]
Write = Callable[..., bytes]
Wav = Callable[..., bytes]
Encode = Callable[..., bytes]
Refused = Callable[..., AbstractContextManager[None]]

WRITTEN = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"]
ENCODED = {
    "m4a": ("ipod", "aac"),
    "webm": ("webm", "libopus"),
    "mkv": ("matroska", "aac"),
    "opus": ("ogg", "libopus"),
    "lame": ("mp3", "libmp3lame"),
    "adts": ("adts", "aac"),
    "wavpack": ("wv", "wavpack"),
}
KINDS = [*WRITTEN, *ENCODED]


@pytest.fixture(scope="module")
def recordings(speech: Samples, write: Write, encode: Encode) -> dict[str, bytes]:
    """Ten seconds of speech in each kind of file."""
    ten = speech[:160_000]
    written = {kind: write(ten, kind) for kind in WRITTEN}
    return written | {kind: encode(ten, container, codec) for kind, (container, codec) in ENCODED.items()}


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_is_truncated(
    kind: str, part: float, recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = recordings[kind]
    with refused("AUDIO_TRUNCATED"):
        read(content[: int(len(content) * part)])


def test_an_mp3_without_a_count_of_its_frames_just_ends(speech: Samples, encode: Encode, read: Read) -> None:
    content = encode(speech, "mp3", "libmp3lame", write_xing="0")
    assert len(read(content[: len(content) // 2])) == pytest.approx(len(speech) / 2, rel=0.05)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_header_without_samples_is_empty(
    kind: str, recordings: dict[str, bytes], write: Write, read: Read, refused: Refused
) -> None:
    with refused("AUDIO_EMPTY"):
        read(write(np.zeros(0, np.float32), kind))
    header = len(recordings[kind]) - 320_000
    with refused("AUDIO_EMPTY"):
        read(recordings[kind][:header])


def test_the_header_pages_of_an_ogg_alone_are_empty(
    recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = recordings["opus"]
    third_page = content.index(b"OggS", content.index(b"OpusTags"))
    with refused("AUDIO_EMPTY"):
        read(content[:third_page])


def test_the_header_of_a_flac_alone_is_not_all_that_it_promises(
    recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = recordings["FLAC"]
    with refused("AUDIO_TRUNCATED"):
        read(content[: content.index(b"\xff\xf8")])


# ADTS numbers nothing and checks nothing: what FFmpeg finds in it is all that can be known.
@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3", "m4a", "webm", "mkv", "opus", "lame", "wavpack"])
def test_damage_in_the_middle_is_corrupt(
    kind: str, recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = recordings[kind]
    middle = len(content) // 2
    noise = np.random.default_rng(0).bytes(len(content) // 20)
    with refused("AUDIO_CORRUPT"):
        read(content[:middle] + noise + content[middle + len(noise) :])


def test_one_bit_of_a_flac_is_enough(recordings: dict[str, bytes], read: Read, refused: Refused) -> None:
    content = bytearray(recordings["FLAC"])
    content[len(content) // 2] ^= 1
    with refused("AUDIO_CORRUPT", match=r"from [45]\.\d\d\d s on"):
        read(bytes(content))


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3", "opus"])
def test_a_stretch_that_went_missing_is_corrupt(
    kind: str, recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = recordings[kind]
    with refused("AUDIO_CORRUPT"):
        read(content[: len(content) // 3] + content[len(content) // 2 + 5 :])


def test_something_after_the_end_of_an_mp3_does_not_matter(recordings: dict[str, bytes], read: Read) -> None:
    whole = read(recordings["lame"])
    for tail in (bytes(5000), b"TAG" + bytes(125)):
        assert np.array_equal(read(recordings["lame"] + tail), whole)


def test_a_recording_that_changes_its_rate_is_corrupt(
    speech: Samples, encode: Encode, read: Read, refused: Refused
) -> None:
    parts = [encode(speech[:32_000], "adts", "aac", rate) for rate in (44_100, 22_050)]
    with refused("AUDIO_CORRUPT", match="sample rate"):
        read(b"".join(parts))


@pytest.mark.parametrize("kind", ["AU", "AIFF", "CAF"])
def test_no_channels_in_a_header_are_refused(
    kind: str, recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    content = bytearray(recordings[kind])
    place, width = {"AU": (20, 4), "AIFF": (content.find(b"COMM") + 8, 2), "CAF": (44, 4)}[kind]
    assert int.from_bytes(content[place : place + width]) == 1
    content[place : place + width] = bytes(width)
    with refused("AUDIO_NO_SUCH_CHANNEL", match="no channels"):
        read(bytes(content))


def test_no_channels_in_a_wav_are_refused(wav: Wav, read: Read, refused: Refused) -> None:
    for size in (None, 0):
        with refused("AUDIO_NO_SUCH_CHANNEL", match="no channels"):
            read(wav(channels=0, size=size))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"channels": 65_535}, "AUDIO_UNSUPPORTED"),
        ({"channels": 1_025}, "AUDIO_UNSUPPORTED"),
        ({"rate": 1}, "AUDIO_UNSUPPORTED"),
        ({"rate": 2**31 - 1}, "AUDIO_UNSUPPORTED"),
        ({"rate": 0}, "AUDIO_CORRUPT"),
        ({"code": 0x1234}, "AUDIO_UNSUPPORTED"),
        ({"bits": 0}, "AUDIO_UNSUPPORTED"),
        ({"bits": 64}, "AUDIO_UNSUPPORTED"),
        ({"size": 2**31 - 2**20}, "AUDIO_TRUNCATED"),
    ],
    ids=str,
)
def test_a_wav_header_is_not_believed(
    arguments: dict[str, int], reason: str, wav: Wav, read: Read, refused: Refused
) -> None:
    with refused(reason):
        read(wav(**arguments))


def test_hostile_headers_cost_no_memory_and_no_time(
    tmp_path: Path, recordings: dict[str, bytes], wav: Wav
) -> None:
    flac, caf, au = (bytearray(recordings[kind]) for kind in ("FLAC", "CAF", "AU"))
    flac[21:26] = b"\xff" * 5
    caf[44:48] = (10**9).to_bytes(4)
    au[20:24] = (10**9).to_bytes(4)
    rf64 = bytearray(recordings["RF64"])
    rf64[28:36] = (2**62).to_bytes(8, "little")
    ogg = bytearray(recordings["OGG"])
    last_page = ogg.rindex(b"OggS")
    ogg[last_page + 6 : last_page + 14] = (2**62).to_bytes(8, "little")
    m4a = bytearray(recordings["m4a"])
    sizes = m4a.index(b"stsz")
    m4a[sizes + 12 : sizes + 16] = b"\xff\xff\xff\xff"
    boxes = m4a[:32] + (2**62).to_bytes(8) + m4a[40:]
    chunks = wav(before=b"junk\0\0\0\0" * 1_000_000)
    for number, content in enumerate([flac, caf, au, rf64, ogg, m4a, boxes, chunks]):
        (tmp_path / str(number)).write_bytes(content)
    program = """if True:
        import pathlib, resource, sys
        from amela_common.audio import AudioLimits, AudioSource, read_blocks
        from amela_common.errors import RequestError
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 200 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for path in pathlib.Path(sys.argv[1]).iterdir():
            try:
                for _ in read_blocks(AudioSource(path=str(path)), 16_000, AudioLimits(roots=(sys.argv[1],))):
                    pass
            except RequestError as error:
                print(error.reason)
            else:
                print("OK")
    """
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path.resolve()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reasons = answer.stdout.split()
    assert len(reasons) == 8
    assert all(reason.startswith("AUDIO_") for reason in reasons if reason != "OK"), answer


@settings(max_examples=150)
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_no_damage_leads_to_anything_but_samples_or_a_reason(
    kind: str, data: st.DataObject, recordings: dict[str, bytes], read: Read
) -> None:
    content = recordings[kind]
    start = data.draw(st.integers(0, 200) | st.integers(0, len(content)))
    stop = data.draw(st.integers(start, start + 50) | st.integers(start, len(content)))
    damaged = content[:start] + data.draw(st.binary(max_size=100)) + content[stop:]
    try:
        samples = read(damaged, max_seconds=60)
    except RequestError as error:
        assert error.reason.startswith("AUDIO_")
    else:
        assert np.isfinite(samples).all() and len(samples) > 0

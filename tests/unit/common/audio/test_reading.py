import io
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soxr
from amela_common.audio import AudioLimits, AudioSource, Clip, load_clip, read_blocks
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Read = Callable[..., Samples]
Write = Callable[..., bytes]
Wav = Callable[..., bytes]
Encode = Callable[..., bytes]
Refused = Callable[..., AbstractContextManager[None]]

WIDTHS = {
    "PCM_U8": 2**-7,
    "PCM_16": 2**-15,
    "PCM_24": 2**-23,
    "PCM_32": 2**-24,
    "FLOAT": 0.0,
    "DOUBLE": 0.0,
}
"""Sample formats of WAV and the largest error of each, in float32."""


@pytest.mark.parametrize("subtype", WIDTHS)
def test_a_wav_of_any_width_gives_the_same_samples(
    subtype: str, speech: Samples, write: Write, read: Read
) -> None:
    samples = read(write(speech, "WAV", subtype))
    assert samples.dtype == np.float32
    assert len(samples) == len(speech)
    assert np.abs(samples - speech).max() <= WIDTHS[subtype]


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_the_full_scale_of_integers_is_one(bits: int, wav: Wav, read: Read) -> None:
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    offset = 128 if bits == 8 else 0
    data = b"".join(
        (value + offset).to_bytes(bits // 8, "little", signed=bits > 8) for value in (lowest, 0, highest)
    )
    for size in (None, 0):
        samples = read(wav(data * 100, bits=bits, size=size))[:3]
        assert samples == pytest.approx([-1.0, 0.0, 1 - 2.0 ** (1 - bits)], abs=2**-24)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_other_rates_give_the_16_khz_version(rate: int, speech: Samples, write: Write, read: Read) -> None:
    samples = read(write(soxr.resample(speech, 16_000, rate), "WAV", "FLOAT", rate))
    assert abs(len(samples) - len(speech)) <= 1
    # What lies above 3.6 kHz does not survive 8 kHz, nor the slope of the filters.
    expected = soxr.resample(soxr.resample(speech, 16_000, min(rate, 16_000)), min(rate, 16_000), 16_000)
    length = min(len(samples), len(expected))
    error = samples[:length] - expected[:length]
    assert np.sqrt(np.mean(error**2)) < 0.002 * np.sqrt(np.mean(speech**2)) + (rate == 8_000) * 1e-6


def test_channels_are_averaged_or_taken(speech: Samples, write: Write, read: Read) -> None:
    left, right, rear = speech[:50_000], speech[50_000:100_000], speech[100_000:150_000]
    content = write(np.stack([left, right, rear], axis=1), "WAV", "FLOAT")
    assert read(content) == pytest.approx((left + right + rear) / 3, abs=1e-7)
    for channel, expected in enumerate((left, right, rear)):
        assert np.array_equal(read(content, channel=channel), expected)


def test_channels_are_averaged_before_they_are_resampled(speech: Samples, write: Write, read: Read) -> None:
    stereo = np.stack([speech, -speech], axis=1)
    assert np.abs(read(write(stereo, "WAV", "FLOAT", 44_100))).max() == 0.0


def test_a_channel_that_does_not_exist_is_refused(write: Write, read: Read, refused: Refused) -> None:
    content = write(np.zeros((1000, 2), np.float32))
    with refused("AUDIO_NO_SUCH_CHANNEL", match="no channel 2; it has 2"):
        read(content, channel=2)


def test_floats_beyond_full_scale_are_kept(write: Write, read: Read) -> None:
    loud = np.array([0.0, 1.5, -7.25, 1000.0], np.float32)
    assert np.array_equal(read(write(loud, "WAV", "FLOAT")), loud)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_are_refused_with_their_time(
    value: float, subtype: str, write: Write, read: Read, refused: Refused
) -> None:
    samples = np.zeros(48_000, np.float32)
    samples[40_000] = value
    content = write(samples, "WAV", subtype)
    with refused("AUDIO_NOT_FINITE", match=r"at 2\.500000 s"):
        read(content)
    with refused("AUDIO_NOT_FINITE", match=r"at 2\.500000 s"):
        read(content, start=1.0)
    assert len(read(content, duration=2.5)) == 40_000
    assert len(read(content, start=2.6)) == 6_400


def test_nan_in_a_channel_that_is_not_taken_does_not_matter(
    write: Write, read: Read, refused: Refused
) -> None:
    stereo = np.zeros((1000, 2), np.float32)
    stereo[500, 1] = np.nan
    content = write(stereo, "WAV", "FLOAT")
    assert len(read(content, channel=0)) == 1000
    with refused("AUDIO_NOT_FINITE"):
        read(content)


def test_infinities_of_both_signs_do_not_cancel_out(write: Write, read: Read, refused: Refused) -> None:
    stereo = np.zeros((1000, 2), np.float32)
    stereo[500] = np.inf, -np.inf
    with refused("AUDIO_NOT_FINITE"):
        read(write(stereo, "WAV", "FLOAT"))


KINDS = [
    "wav",
    "wav from a pipe",
    "wav never closed",
    "adpcm",
    "gsm",
    "flac",
    "alac",
    "vorbis",
    "opus",
    "mp3",
    "m4a",
    "webm",
]


@pytest.fixture(scope="module")
def recordings(speech: Samples, write: Write, encode: Encode, wav: Wav) -> dict[str, bytes]:
    """Six seconds of speech in each kind of file that is sought in, or decoded from its start."""
    six = speech[:96_000]
    return {
        "wav": write(six, "WAV", "PCM_16"),
        "wav from a pipe": wav(np.int16(six * 32767).tobytes(), size=0xFFFF_FFFF),
        "wav never closed": wav(np.int16(six * 32767).tobytes(), size=0),
        "adpcm": write(six, "WAV", "MS_ADPCM"),
        "gsm": write(six, "WAV", "GSM610"),
        "flac": write(six, "FLAC", "PCM_16"),
        "alac": write(six, "CAF", "ALAC_16"),
        "vorbis": write(six, "OGG", "VORBIS"),
        "opus": encode(six, "ogg", "libopus"),
        "mp3": encode(six, "mp3", "libmp3lame", rate=16_000),
        "m4a": encode(six, "ipod", "aac", rate=16_000),
        "webm": encode(six, "webm", "libopus"),
    }


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    start=st.floats(0, 5.9),
    duration=st.none() | st.floats(0.001, 7),
)
def test_a_stretch_is_that_slice_of_the_whole(
    kind: str, start: float, duration: float | None, recordings: dict[str, bytes], read: Read
) -> None:
    rate = 48_000 if kind in ("opus", "webm") else 16_000
    whole = read(recordings[kind], rate=rate)
    stop = None if duration is None else round((start + duration) * rate)
    assert np.array_equal(
        read(recordings[kind], rate=rate, start=start, duration=duration), whole[round(start * rate) : stop]
    )


def test_neighbouring_stretches_share_no_sample_and_miss_none(
    speech: Samples, write: Write, read: Read
) -> None:
    content = write(speech[:80_000], "WAV", "FLOAT")
    cuts = [0.0, 0.7, 1.1, 2.00003, 3.3, 5.0]
    pieces = [read(content, start=a, duration=b - a) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), speech[:80_000])


def test_a_stretch_is_resampled_as_if_nothing_lay_around_it(
    speech: Samples, write: Write, read: Read
) -> None:
    content = write(speech, "WAV", "FLOAT", 44_100)
    alone = write(speech[44_100:88_200], "WAV", "FLOAT", 44_100)
    assert np.array_equal(read(content, start=1.0, duration=1.0), read(alone))


@settings(max_examples=25)
@given(block_seconds=st.floats(0.001, 30), rate=st.sampled_from([8_000, 16_000, 22_050]))
def test_blocks_are_the_clip_in_pieces(
    block_seconds: float, rate: int, speech: Samples, write: Write
) -> None:
    source = AudioSource(content=write(speech[:40_000], "FLAC", "PCM_16"))
    clip = load_clip(source, rate, AudioLimits())
    blocks = list(read_blocks(source, rate, AudioLimits(), block_seconds))
    assert np.array_equal(np.concatenate(blocks), clip.samples)
    length = max(1, round(block_seconds * rate))
    assert all(len(block) == length for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= length


def test_a_clip_knows_its_duration() -> None:
    assert Clip(np.zeros(24_000, np.float32), 16_000).duration == 1.5


@pytest.mark.parametrize("kind", ["wav", "wav never closed", "flac", "mp3", "webm"])
def test_a_start_at_or_past_the_end_is_out_of_range(
    kind: str, recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    assert len(read(recordings[kind], start=5.999)) > 0
    for start in (6.0, 6.1, 1e9):
        with refused("AUDIO_OUT_OF_RANGE", match=r"lasts 6\.0"):
            read(recordings[kind], start=start)
        with refused("AUDIO_OUT_OF_RANGE"):
            read(recordings[kind], start=start, duration=1.0)


@pytest.mark.parametrize("kind", ["wav", "opus", "m4a"])
def test_a_stretch_past_the_end_is_cut_there(kind: str, recordings: dict[str, bytes], read: Read) -> None:
    assert len(read(recordings[kind], start=5.0, duration=1e9)) == pytest.approx(16_000, abs=1100)


def test_a_stretch_between_two_samples_is_too_short(write: Write, read: Read, refused: Refused) -> None:
    content = write(np.zeros(1000, np.float32))
    with refused("AUDIO_TOO_SHORT"):
        read(content, start=0.01, duration=1e-6)
    with refused("AUDIO_TOO_SHORT"):
        read(content, duration=1 / 16_000, rate=1_000)


def test_a_recording_longer_than_the_limit_is_refused(
    recordings: dict[str, bytes], read: Read, refused: Refused
) -> None:
    for kind in ("wav", "mp3", "wav never closed"):
        assert len(read(recordings[kind], max_seconds=6.0)) == 96_000
        assert len(read(recordings[kind], max_seconds=2.0, start=3.0, duration=2.0)) == 32_000
        with refused("AUDIO_TOO_LONG", match=r"5\.9 s"):
            read(recordings[kind], max_seconds=5.9)
        with refused("AUDIO_TOO_LONG"):
            read(recordings[kind], max_seconds=2.0, start=3.0)


def test_a_known_length_is_refused_before_the_first_block(write: Write, refused: Refused) -> None:
    blocks = read_blocks(
        AudioSource(content=write(np.zeros(160_000, np.float32))), 16_000, AudioLimits(max_seconds=5.0), 1.0
    )
    with refused("AUDIO_TOO_LONG"):
        next(blocks)


def test_damage_after_the_stretch_does_not_matter(recordings: dict[str, bytes], read: Read) -> None:
    for kind in ("flac", "mp3", "opus"):
        content = recordings[kind]
        damaged = content[: len(content) * 3 // 4] + bytes(200) + content[len(content) * 3 // 4 + 200 :]
        assert np.array_equal(read(damaged, duration=2.0), read(content, duration=2.0))


def test_what_can_be_read_comes_before_the_error(recordings: dict[str, bytes], refused: Refused) -> None:
    content = recordings["mp3"]
    source = AudioSource(content=content[: len(content) // 2])
    blocks = []
    with refused("AUDIO_TRUNCATED"):
        blocks.extend(read_blocks(source, 16_000, AudioLimits(), 0.5))


def test_sixteen_hours_are_read_in_bounded_memory(tmp_path: Path, wav: Wav) -> None:
    # 16 h at 16 kHz, 1.8 GB of which the disk holds the first and the last block only.
    length = 16 * 3600 * 16_000
    path = tmp_path / "day.wav"
    path.write_bytes(wav(b"", size=2 * length))
    with path.open("r+b") as file:
        file.truncate(44 + 2 * length - 2)
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<h", 2**14))
    source = AudioSource(path=str(path), start=15.9 * 3600)
    limits = AudioLimits(roots=(str(tmp_path.resolve()),))
    blocks = read_blocks(source, 16_000, limits)
    sizes, last = [], np.zeros(0)
    for last in blocks:
        sizes.append(last.nbytes)
    assert max(sizes) == 30 * 16_000 * 4
    assert sum(sizes) == 0.1 * 3600 * 16_000 * 4
    assert last[-1] == 0.5

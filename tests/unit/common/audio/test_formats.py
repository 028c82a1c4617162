import io
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import av
import numpy as np
import pytest
from amela_common.audio import AudioLimits, AudioSource, load_clip
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Read = Callable[..., Samples]
Write = Callable[..., bytes]
Wav = Callable[..., bytes]
Encode = Callable[..., bytes]
Refused = Callable[..., AbstractContextManager[None]]


def sounds_like(samples: Samples, expected: Samples, delay: int = 0) -> bool:
    """Whether a lossy copy is the same recording, with the delay of its encoder in samples."""
    length = min(len(samples) - delay, len(expected))
    assert abs(len(samples) - len(expected)) <= 0.1 * 16_000
    return bool(np.corrcoef(samples[delay : delay + length], expected[:length])[0, 1] > 0.95)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "ULAW"),
        ("WAV", "ALAW"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "GSM610"),
        ("WAVEX", "PCM_24"),
        ("RF64", "FLOAT"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_S8"),
        ("AIFF", "PCM_24"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_32"),
        ("CAF", "ALAC_16"),
        ("NIST", "PCM_16"),
        ("VOC", "PCM_16"),
        ("FLAC", "PCM_S8"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_what_libsndfile_writes_is_read(
    kind: str, subtype: str, speech: Samples, write: Write, read: Read
) -> None:
    assert sounds_like(read(write(speech, kind, subtype)), speech)


@pytest.mark.parametrize(
    ("container", "codec", "rate", "delay"),
    [
        ("ipod", "aac", 44_100, 0),
        ("ipod", "alac", 48_000, 0),
        ("adts", "aac", 44_100, 372),
        ("webm", "libopus", 48_000, 0),
        ("matroska", "flac", 48_000, 0),
        ("ogg", "libopus", 48_000, 0),
        ("ogg", "flac", 44_100, 0),
        ("mp3", "libmp3lame", 44_100, 0),
        ("mp3", "libmp3lame", 16_000, 0),
        ("flac", "flac", 44_100, 0),
        ("wav", "pcm_f64le", 44_100, 0),
        ("caf", "pcm_s24be", 44_100, 0),
        ("wv", "wavpack", 44_100, 0),
        ("tta", "tta", 44_100, 0),
    ],
)
def test_what_ffmpeg_writes_is_read(
    *, container: str, codec: str, rate: int, delay: int, speech: Samples, encode: Encode, read: Read
) -> None:
    assert sounds_like(read(encode(speech, container, codec, rate)), speech, delay)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("mov", "pcm_s16le")]
)
def test_the_audio_track_of_a_video_is_read(
    container: str, codec: str, speech: Samples, encode: Encode, read: Read
) -> None:
    assert sounds_like(read(encode(speech, container, codec, video=True)), speech)


def test_a_path_reads_like_its_bytes(
    *, tmp_path: Path, limits: AudioLimits, speech: Samples, write: Write, encode: Encode, read: Read
) -> None:
    for content in (write(speech), write(speech, "FLAC"), encode(speech, "ipod", "aac")):
        path = tmp_path / "no extension"
        path.write_bytes(content)
        clip = load_clip(AudioSource(path=str(path), start=1.0, duration=2.0), 16_000, limits)
        assert np.array_equal(clip.samples, read(content, start=1.0, duration=2.0))


def test_both_decoders_agree_on_linear_samples(speech: Samples, write: Write, read: Read) -> None:
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        content = write(speech[:8000], "WAV", subtype)
        place = content.index(b"data") + 4
        without_length = content[:place] + bytes(4) + content[place + 4 :]
        assert np.array_equal(read(without_length), read(content))


def test_channels_of_a_lossy_recording_are_averaged_or_taken(
    speech: Samples, write: Write, read: Read
) -> None:
    left, right = speech[:48_000], speech[48_000:96_000]
    content = write(np.stack([left, right], axis=1), "OGG", "VORBIS")
    assert sounds_like(read(content, channel=0), left)
    assert sounds_like(read(content, channel=1), right)
    assert read(content) == pytest.approx((read(content, channel=0) + read(content, channel=1)) / 2, abs=1e-6)


@pytest.mark.parametrize("riff", [0, 0xFFFF_FFFF, None])
@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000])
def test_a_wav_from_a_pipe_is_read_to_its_end(
    size: int, riff: int | None, speech: Samples, wav: Wav, read: Read
) -> None:
    data = np.int16(speech * 32767).tobytes()
    assert len(read(wav(data, size=size, riff=riff))) == len(speech)


def test_a_flac_from_a_pipe_is_read_to_its_end(speech: Samples, write: Write, read: Read) -> None:
    content = bytearray(write(speech, "FLAC"))
    # STREAMINFO: 36 bits of total samples, 0 for not known.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert sounds_like(read(bytes(content)), speech)


def test_an_mp3_without_a_count_of_its_frames_is_read_to_its_end(
    speech: Samples, encode: Encode, read: Read
) -> None:
    # Silence in front makes the first frames small, and an estimate from them far too short or too long.
    recording = np.concatenate([np.zeros(160_000, np.float32), speech[:160_000]])
    content = encode(recording, "mp3", "libmp3lame", rate=44_100, write_xing="0")
    assert len(read(content)) == pytest.approx(len(recording), abs=0.2 * 16_000)


def test_an_opus_stream_that_was_never_closed_is_read(speech: Samples, write: Write, read: Read) -> None:
    content = write(speech[:80_000], "OGG", "OPUS")
    last_page = content.rindex(b"OggS")
    assert len(read(content[:last_page])) >= 80_000 - 2 * 16_000


def test_all_streams_of_a_chained_ogg_are_read(speech: Samples, encode: Encode, read: Read) -> None:
    first, second = speech[:80_000], speech[80_000:160_000]
    chained = encode(first, "ogg", "libopus") + encode(second, "ogg", "libopus")
    assert sounds_like(read(chained), speech[:160_000])


def test_metadata_that_are_not_utf8_do_not_matter(speech: Samples, wav: Wav, read: Read) -> None:
    title = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"\xe9\xff\xfe\0"
    data = np.int16(speech * 32767).tobytes()
    for size in (None, 0):
        assert len(read(wav(data, size=size, before=title))) == len(speech)


def test_a_video_without_an_audio_track_is_refused(read: Read, refused: Refused) -> None:
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        output.mux(stream.encode(None))
    with refused("AUDIO_UNSUPPORTED", match="no audio track"):
        read(film.getvalue())


@pytest.mark.parametrize(
    "content",
    [
        b"speech is silver, silence is golden\n" * 100,
        "speech is silver, silence is golden\n".encode("utf-16") * 100,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde" + bytes(100),
        b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(1000),
        b"%PDF-1.7\n" + bytes(1000),
        b"PK\3\4" + bytes(1000),
        b'{"audio_filepath": "/a.wav"}\n',
        b"\1\4" + bytes(range(256)) * 10,
        np.random.default_rng(0).bytes(100_000),
        bytes(100_000),
        b"x",
        b"RIFF",
    ],
    ids=["text", "utf-16", "png", "jpeg", "pdf", "zip", "json", "mpc", "random", "zeros", "byte", "riff"],
)
def test_what_is_not_audio_is_refused(content: bytes, read: Read, refused: Refused) -> None:
    with refused("AUDIO_UNSUPPORTED"):
        read(content)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n# {}\n",
        '<?xml version="1.0"?><MPD type="static" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        "<Period><AdaptationSet mimeType='audio/mp4'><Representation><BaseURL>{}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["hls", "hls url", "concat", "sdp", "dash"],
)
def test_a_playlist_opens_no_other_file(
    playlist: str, examples: Path, tmp_path: Path, limits: AudioLimits, refused: Refused
) -> None:
    path = tmp_path / "list.m4a"
    path.write_text(playlist.format(examples.resolve() / "sense-and-sensibility-0870.flac"))
    with refused("AUDIO_UNSUPPORTED", path):
        load_clip(AudioSource(path=str(path)), 16_000, limits)


def test_decoders_write_nothing_to_stderr(
    tmp_path: Path, speech: Samples, write: Write, encode: Encode, wav: Wav
) -> None:
    files = [
        write(speech, "MP3"),
        write(speech, "FLAC"),
        write(speech, "OGG", "VORBIS"),
        write(speech, "AIFF"),
        encode(speech, "ipod", "aac"),
        encode(speech, "webm", "libopus"),
        wav(size=0),
    ]
    for number, content in enumerate(files):
        middle = len(content) // 2
        (tmp_path / f"{number}-whole").write_bytes(content)
        (tmp_path / f"{number}-cut").write_bytes(content[:middle])
        (tmp_path / f"{number}-damaged").write_bytes(content[:middle] + bytes(500) + content[middle + 500 :])
        (tmp_path / f"{number}-header").write_bytes(content[:20] + b"\xff" * 20 + content[40:])
    program = """if True:
        import pathlib, sys
        from amela_common.audio import AudioLimits, AudioSource, load_clip
        from amela_common.errors import RequestError
        for path in pathlib.Path(sys.argv[1]).iterdir():
            for arguments in ({"path": str(path)}, {"content": path.read_bytes()}):
                try:
                    load_clip(AudioSource(**arguments), 16_000, AudioLimits(roots=(sys.argv[1],)))
                except RequestError:
                    print("refused")
    """
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path.resolve()], capture_output=True, text=True, check=True
    )
    assert answer.stderr == ""
    assert answer.stdout.count("refused") >= 2 * 12

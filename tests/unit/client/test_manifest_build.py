import json
import os
import struct
import subprocess
import wave
from pathlib import Path

import pytest
from amela_client.audio_headers import duration
from amela_client.errors import ManifestError
from amela_client.manifest import Entry, Manifest
from amela_client.manifest_build import LeftOut, build_manifest, find_audio

EXAMPLES = Path(__file__).parents[3] / "examples"


def write_wav(path: Path, seconds: float, rate: int = 16_000, channels: int = 1, width: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(round(seconds * rate) * channels * width))


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return (
        struct.pack("<4sI", name, len(content) if size is None else size) + content + bytes(len(content) % 2)
    )


def riff(*chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    return magic + struct.pack("<I", 0xFFFF_FFFF) + b"WAVE" + b"".join(chunks)


def fmt(kind: int, rate: int, block: int) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, 1, rate, rate * block, block, 8 * block))


def test_recordings_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["b/2.flac", "b/1.WAV", "a.opus", "b.wav", "b-c/x.mp3", "c/d/e/f.m4a", "z.webm", "b/10.ogg"]
    for name in [*names, "notes.txt", "b/wav", ".hidden.wav", ".trash/x.wav", "b/._1.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path) for path in find_audio(tmp_path)] == sorted(str(tmp_path / name) for name in names)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    write_wav(elsewhere / "far.wav", 0.1)
    write_wav(corpus / "near.wav", 0.1)
    (corpus / "loop").symlink_to(corpus)
    (corpus / "same").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(corpus)
    (corpus / "twice").symlink_to(elsewhere)
    (corpus / "link.wav").symlink_to(elsewhere / "far.wav")
    found = [str(path) for path in find_audio(corpus)]
    assert found == [f"{corpus}/link.wav", f"{corpus}/near.wav", f"{corpus}/same/far.wav"]


def test_paths_stay_under_the_name_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "real" / "a.wav", 0.1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    assert list(find_audio("link/../link")) == [tmp_path / "link" / "a.wav"]


def test_very_deep_folders_are_walked(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("deep.wav", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    found = [str(path) for path in find_audio(tmp_path)]
    # pytest cannot remove what is this deep.
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
    assert [path[-13:] for path in found] == ["/d/d/deep.wav"]


def test_what_cannot_be_in_a_manifest_is_named_and_left_out(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav", 0.5)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xe9e")).mkdir()
    (tmp_path / "broken.wav").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.wav")
    report = build_manifest(tmp_path, tmp_path / "data.json")
    assert report.recordings == 1
    assert {Path(name).name: why.split(",")[0] for name, why in report.left_out} == {
        "broken.wav": "not a regular file",
        "caf\\udce9.wav": "the name is not UTF-8",
        "n\\udce9e": "the name is not UTF-8",
        "pipe.wav": "not a regular file",
    }
    for item in report.left_out:
        assert isinstance(item, LeftOut)
        item.name.encode()


def test_a_link_that_cannot_be_followed_costs_nothing_but_itself(tmp_path: Path) -> None:
    write_wav(tmp_path / "child1" / "a.wav", 0.1)
    write_wav(tmp_path / "child2" / "b.wav", 0.1)
    for name in ("loop", "loop.wav", "child2/loop", "child2/loop.flac"):
        (tmp_path / name).symlink_to(Path(name).name)
    (tmp_path / "child2" / "inside").symlink_to("b.wav/inside")
    (tmp_path / "child2" / "inside.wav").symlink_to("b.wav/inside")
    found = list(find_audio(tmp_path))
    assert [path for path in found if isinstance(path, Path)] == [
        tmp_path / "child1" / "a.wav",
        tmp_path / "child2" / "b.wav",
    ]
    assert [item.name for item in found if isinstance(item, LeftOut)] == [
        f"{tmp_path}/{name}" for name in ("child2/inside.wav", "child2/loop.flac", "loop.wav")
    ]


def test_a_link_into_a_closed_folder_is_named_if_it_may_lead_to_recordings(users_folder: Path) -> None:
    closed, corpus = users_folder / "closed", users_folder / "corpus"
    write_wav(closed / "day" / "a.wav", 0.1)
    write_wav(corpus / "b.wav", 0.1)
    (corpus / "day").symlink_to(closed / "day")
    (corpus / "c.wav").symlink_to(closed / "day" / "a.wav")
    closed.chmod(0)
    try:
        found = list(find_audio(corpus))
    finally:
        closed.chmod(0o700)
    assert found == [
        corpus / "b.wav",
        LeftOut(f"{corpus}/c.wav", "not a regular file, or a link that leads nowhere"),
        LeftOut(f"{corpus}/day/", "cannot be read: Permission denied"),
    ]


def test_a_built_manifest_is_read_back_without_a_fault_or_warning(tmp_path: Path) -> None:
    write_wav(tmp_path / "corpus" / "één.wav", 1.25)
    (tmp_path / "corpus" / 'odd "name"\n.mp3').touch()
    (tmp_path / "corpus" / "broken.flac").write_bytes(b"fLaC")
    report = build_manifest(tmp_path / "corpus", tmp_path / "data.json")
    assert (report.recordings, report.seconds, report.without_duration) == (3, 1.25, 2)
    manifest = Manifest(tmp_path / "data.json", strict=True)
    entries = [item for item in manifest if isinstance(item, Entry)]
    assert {Path(entry.audio_filepath).name: entry.duration for entry in entries} == {
        "broken.flac": None,
        'odd "name"\n.mp3': None,
        "één.wav": 1.25,
    }
    assert manifest.warnings == ()


def test_a_folder_without_recordings_is_an_error_and_keeps_the_old_manifest(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("before")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "x.wav").symlink_to("nowhere")
    with pytest.raises(ManifestError, match=r"no recording below .*\.wav.*left out: 1, like .*x\.wav"):
        build_manifest(tmp_path, tmp_path / "data.json")
    assert (tmp_path / "data.json").read_text() == "before"


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        with pytest.raises(ManifestError, match="cannot be read"):
            list(find_audio(tmp_path / name))
    with pytest.raises(ManifestError, match="cannot be read"):
        build_manifest(tmp_path / "nowhere", tmp_path / "data.json")
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    bad.mkdir()
    with pytest.raises(ManifestError, match="not UTF-8"):
        list(find_audio(bad))


def test_a_manifest_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.1)
    with pytest.raises(ManifestError, match="cannot be written"):
        build_manifest(tmp_path, tmp_path / "nowhere" / "data.json")


@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(8_000, 1, 1), (16_000, 2, 2), (44_100, 6, 3), (192_000, 1, 4)]
)
def test_the_duration_of_pcm_comes_from_its_header(
    tmp_path: Path, rate: int, channels: int, width: int
) -> None:
    write_wav(tmp_path / "a.wav", 1.5, rate, channels, width)
    assert duration(tmp_path / "a.wav") == pytest.approx(1.5)


def test_the_duration_of_flac_comes_from_its_header() -> None:
    for line in (EXAMPLES / "data.json").read_text().splitlines():
        entry = json.loads(line)
        assert duration(EXAMPLES / entry["audio_filepath"]) == pytest.approx(entry["duration"], abs=0.01)


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (riff(fmt(3, 100, 4), chunk(b"fact", b"1234"), chunk(b"data", bytes(400))), 1.0),
        (riff(fmt(0xFFFE, 100, 2), chunk(b"LIST", b"odd"), chunk(b"data", bytes(400))), 2.0),
        (riff(fmt(7, 100, 1), chunk(b"data", bytes(50), size=0xFFFF_FFFF)), 0.5),
        (riff(fmt(1, 100, 2), chunk(b"data", bytes(100), size=400)), 0.5),
        (
            riff(
                chunk(b"ds64", struct.pack("<QQQ", 0, 200, 100)),
                fmt(1, 100, 2),
                chunk(b"data", bytes(200), size=0xFFFF_FFFF) + chunk(b"LIST", bytes(100)),
                magic=b"RF64",
            ),
            1.0,
        ),
        (riff(fmt(2, 100, 2), chunk(b"data", bytes(100))), None),
        (riff(fmt(1, 0, 2), chunk(b"data", bytes(100))), None),
        (riff(fmt(1, 100, 2), chunk(b"data", b"")), None),
        (riff(chunk(b"data", bytes(100))), None),
        (riff(chunk(b"fmt ", b"short")), None),
        (riff(fmt(1, 100, 2)), None),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"RIFF", None),
        (b"fLaC" + bytes(10), None),
        (b"fLaC" + b"\x04\0\0\x22" + bytes(34), None),
        (b"fLaC" + b"\0\0\0\x22" + bytes(34), None),
        (b"ID3\x04", None),
        (b"", None),
    ],
)
def test_a_header_tells_no_more_than_it_can_know(
    tmp_path: Path, content: bytes, seconds: float | None
) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert duration(tmp_path / "a.wav") == seconds

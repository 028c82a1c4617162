"""Names of the files that recordings become."""

import json
from pathlib import Path

import pytest
from amela_client.errors import ManifestError
from amela_client.manifest import Entry, Manifest
from amela_client.mirror import Mirror
from hypothesis import given
from hypothesis import strategies as st


def manifest(folder: Path, *lines: dict[str, object] | str) -> Manifest:
    path = folder / "data.json"
    entries = [line if isinstance(line, dict) else {"audio_filepath": line} for line in lines]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return Manifest(path)


def planned(folder: Path, *lines: dict[str, object] | str) -> list[str]:
    source = manifest(folder, *lines)
    mirror = Mirror.plan(source, folder / "out", ".wav")
    entries = [item for item in source if isinstance(item, Entry)]
    return [str(mirror.path(entry).relative_to(folder / "out")) for entry in entries]


def test_the_structure_below_the_common_root_is_kept(tmp_path: Path) -> None:
    assert planned(tmp_path, "/c/a/1.flac", "/c/a/b/2.mp3", "/c/3.tar.wav") == [
        "a/1.wav",
        "a/b/2.wav",
        "3.tar.wav",
    ]
    assert planned(tmp_path, "/c/a/1.flac") == ["1.wav"]
    assert planned(tmp_path, "/a/1.flac", "/b/1.flac") == ["a/1.wav", "b/1.wav"]
    assert planned(tmp_path, "/1.flac") == ["1.wav"]


def test_folders_that_only_begin_alike_are_not_one(tmp_path: Path) -> None:
    assert planned(tmp_path, "/c/ab/1.wav", "/c/ac/1.wav") == ["ab/1.wav", "ac/1.wav"]


def test_dots_and_double_slashes_lead_nowhere_else(tmp_path: Path) -> None:
    assert planned(tmp_path, "//c/a/../b/1.wav", "/c/./2.wav", "/c/../../3.wav") == [
        "c/b/1.wav",
        "c/2.wav",
        "3.wav",
    ]


def test_stretches_of_one_recording_are_files_of_their_own(tmp_path: Path) -> None:
    line = {"audio_filepath": "/c/a.wav"}
    lines = [line, line | {"offset": 1.5, "duration": 2.75}, line | {"offset": 0}]
    assert planned(tmp_path, *lines) == ["a.wav", "a_1.500_4.250.wav", "a_0.000.wav"]


def test_two_recordings_for_one_file_are_named_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"lines 1 and 3 would both become a\.wav"):
        planned(tmp_path, "/c/a.wav", "/c/b/a.wav", "/c/a.flac")
    with pytest.raises(ManifestError, match="lines 1 and 2"):
        planned(tmp_path, "/c/a.wav", "/c/x/../a.flac")
    stretch = {"audio_filepath": "/c/a.wav", "offset": 1.0001}
    with pytest.raises(ManifestError, match=r"a_1\.000\.wav"):
        planned(tmp_path, stretch, stretch | {"offset": 1.0002})


def test_recordings_in_the_folder_of_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for name in ("out/a.wav", "out/sub/a.wav", "link/a.wav"):
        with pytest.raises(ManifestError, match=r"line 2: .*could not be told from recordings"):
            planned(tmp_path, "/c/a.wav", str(tmp_path / name))
    # A folder of results below that of the recordings is as good as any.
    assert planned(tmp_path, str(tmp_path / "a.wav"), str(tmp_path / "output.wav")) == ["a.wav", "output.wav"]


def test_a_name_that_no_file_system_takes_is_found_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 1: .*longer than 240 bytes"):
        planned(tmp_path, f"/c/{'ü' * 119}.flac")


def test_faults_are_passed_over(tmp_path: Path) -> None:
    assert planned(tmp_path, {"duration": 1}, "/c/a.wav") == ["a.wav"]


names = st.text("ab.", min_size=1, max_size=3)


@given(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=6))
def test_every_entry_has_a_file_of_its_own_below_the_folder(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("mirror")
    try:
        files = planned(folder, *("/" + "/".join(path) for path in parts))
    except ManifestError:
        return
    assert len(set(files)) == len(files)
    assert not any(file.startswith("/") or ".." in Path(file).parts for file in files)

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amela_client.errors import ManifestError, MergeError
from amela_client.manifest import Manifest
from amela_client.shares import merge_shares, split
from hypothesis import given, settings
from hypothesis import strategies as st


def manifest_of(folder: Path, count: int, name: str = "data.json") -> Manifest:
    lines = [f'{{"audio_filepath": "/{number}.wav", "gain": 1.{number}0}}\n' for number in range(count)]
    (folder / name).write_text("\n".join(lines))
    return Manifest(folder / name)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def test_entry_i_goes_to_share_i_modulo_n(tmp_path: Path) -> None:
    shares = split(manifest_of(tmp_path, 7), 3, tmp_path / "splits")
    assert [share.name for share in shares] == [f"data_split_0{number}.json" for number in range(3)]
    assert [[line["audio_filepath"] for line in lines_of(share)] for share in shares] == [
        ["/0.wav", "/3.wav", "/6.wav"],
        ["/1.wav", "/4.wav"],
        ["/2.wav", "/5.wav"],
    ]
    assert lines_of(shares[1])[1]["amela_share"] == [4, 7]


def test_names_sort_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shares = split(manifest_of(tmp_path, 101), 101, tmp_path)
    assert shares == sorted(shares)
    assert (shares[0].name, shares[100].name) == ("data_split_000.json", "data_split_100.json")


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), splits=st.integers(1, 40), reverse=st.booleans())
def test_splitting_and_merging_gives_the_manifest_back(
    tmp_path_factory: pytest.TempPathFactory, count: int, splits: int, reverse: bool
) -> None:
    folder = tmp_path_factory.mktemp("shares")
    manifest = manifest_of(folder, count)
    shares = split(manifest, min(count, splits), folder / "splits")
    if reverse:
        # Tools that sort by length or finish out of order change a share's order.
        for share in shares:
            share.write_text("\n".join(reversed(share.read_text().splitlines())))
    assert merge_shares([f"{folder}/splits/*_split_*.json"], folder / "final.json") == (count, len(shares))
    before = [line for line in manifest.path.read_text().splitlines() if line]
    assert (folder / "final.json").read_text().splitlines() == before


def test_relative_paths_become_absolute_so_that_shares_can_lie_anywhere(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"audio_filepath": "clips/a.wav", "n": 1.0}')
    (share,) = split(Manifest(tmp_path / "data.json"), 1, tmp_path / "splits")
    (item,) = Manifest(share)
    assert item.audio_filepath == f"{tmp_path}/clips/a.wav"


def test_a_csv_manifest_is_split_into_json_lines(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("audio_filepath,speaker\n/a.wav,x\n/b.wav,y\n")
    shares = split(Manifest(tmp_path / "data.csv"), 2, tmp_path)
    assert lines_of(shares[1]) == [{"audio_filepath": "/b.wav", "speaker": "y", "amela_share": [1, 2]}]


def test_lines_with_a_fault_go_along_if_they_are_objects(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"audio_filepath": "/a.wav", "duration": -1}\n{"x": 1.50}\n')
    shares = split(Manifest(tmp_path / "data.json"), 2, tmp_path / "splits")
    merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert (tmp_path / "final.json").read_text() == (tmp_path / "data.json").read_text()


@pytest.mark.parametrize(
    ("content", "splits", "words"),
    [
        ('{"audio_filepath": "/a.wav"}\n{"broken\n', 2, "line 2: BAD_JSON"),
        ('{"audio_filepath": "/a.wav", "amela_share": [0, 1]}\n', 1, "line 1 is a share's already"),
        ('{"audio_filepath": "/a.wav"}\n', 2, "has 1 entries, which do not make 2 shares"),
        ('{"audio_filepath": "/a.wav"}\n', 0, "do not make 0 shares"),
        ('{"audio_filepath": "/a.wav"}\n', -1, "do not make -1 shares"),
    ],
)
def test_what_cannot_be_split_is_refused_and_nothing_is_written(
    tmp_path: Path, content: str, splits: int, words: str
) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(ManifestError, match=words):
        split(Manifest(tmp_path / "data.json"), splits, tmp_path / "splits")
    assert not list(tmp_path.glob("splits/*"))


def test_shares_that_are_there_already_are_never_overwritten(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, 4)
    split(manifest, 4, tmp_path)
    with pytest.raises(ManifestError, match=r"data_split_00\.json, which may hold results"):
        split(manifest, 2, tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="file"):
        split(manifest_of(tmp_path, 2), 2, tmp_path / "file" / "splits")


@pytest.fixture
def shares(tmp_path: Path) -> list[Path]:
    return split(manifest_of(tmp_path, 30), 3, tmp_path / "splits")


def rewrite(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def test_missing_lines_are_named_and_nothing_is_written(tmp_path: Path, shares: list[Path]) -> None:
    lines = shares[1].read_text().splitlines()
    rewrite(shares[1], lines[:3] + lines[5:])
    with pytest.raises(MergeError, match=r"2 of 30 entries are missing from 3 shares: 11, 14$"):
        merge_shares([f"{tmp_path}/splits/*.json"], tmp_path / "final.json")
    assert not (tmp_path / "final.json").exists()


def test_a_missing_share_is_noticed_and_quarantines_are_pointed_at(
    tmp_path: Path, shares: list[Path]
) -> None:
    shares[2].unlink()
    (tmp_path / "splits" / "data_split_00.errors.jsonl").write_text("{}\n")
    with pytest.raises(MergeError) as caught:
        merge_shares([f"{tmp_path}/splits/*_split_*.json*"], tmp_path / "final.json")
    assert "10 of 30" in str(caught.value)
    assert "3, 6, 9" in str(caught.value)
    assert "data_split_00.errors.jsonl" in str(caught.value)


def test_a_line_that_is_there_twice_is_named_with_both_places(tmp_path: Path, shares: list[Path]) -> None:
    lines = shares[0].read_text().splitlines()
    rewrite(shares[1], [*shares[1].read_text().splitlines(), "", lines[4]])
    with pytest.raises(MergeError) as caught:
        merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert f"entry 13 of 30 is there twice: {shares[0]}, line 5, and {shares[1]}, line 12" in str(
        caught.value
    )
    rewrite(shares[0], [*lines, lines[0]])
    with pytest.raises(MergeError, match=r"entry 1 of 30 is there twice: .*line 1, and .*line 11"):
        merge_shares([str(shares[0])], tmp_path / "final.json")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"audio_filepath": "/a.wav"}', "has no amela_share"),
        ('{"amela_share": [3, 3]}', "not the two numbers"),
        ('{"amela_share": [-1, 3]}', "not the two numbers"),
        ('{"amela_share": "0 of 3"}', "not the two numbers"),
        ('{"amela_share": [0, 31]}', "not the shares of one split"),
        ('{"amela_share": [0, 1000000000000]}', "cannot hold"),
        ('{"torn', "BAD_JSON"),
        ("[1]", "NOT_AN_OBJECT"),
    ],
)
def test_a_line_that_is_not_from_the_split_is_named(
    tmp_path: Path, shares: list[Path], line: str, words: str
) -> None:
    rewrite(shares[2], [line, *shares[2].read_text().splitlines()])
    with pytest.raises(MergeError) as caught:
        merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert f"{shares[2]}, line 1" in str(caught.value)
    assert words in str(caught.value)


def test_a_pattern_without_a_match_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MergeError, match=rf"no share matches output/.* from {tmp_path}"):
        merge_shares(["output/*_split_*.json"], tmp_path / "final.json")


def test_shares_without_lines_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a_split_00.json").touch()
    with pytest.raises(MergeError, match=r"no line in .*a_split_00.json"):
        merge_shares([f"{tmp_path}/*.json"], tmp_path / "final.json")


def test_the_output_may_match_the_pattern_and_be_merged_again(tmp_path: Path, shares: list[Path]) -> None:
    output = tmp_path / "splits" / "final_split_.json"
    for _ in range(2):
        assert merge_shares([f"{tmp_path}/splits/*_split_*.json"], output) == (30, 3)


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path, shares: list[Path]) -> None:
    with pytest.raises(MergeError, match="cannot be put together"):
        merge_shares([str(share) for share in shares], tmp_path / "nowhere" / "final.json")
    with pytest.raises(MergeError, match="not a regular file"):
        merge_shares([str(share) for share in shares], tmp_path / "splits")


@contextmanager
def few_open_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_more_shares_than_open_files_is_an_error_with_the_cure(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, 200)
    with few_open_files(), pytest.raises(ManifestError, match="ulimit -n"):
        split(manifest, 200, tmp_path / "splits")
    assert not list(tmp_path.glob("splits/*"))

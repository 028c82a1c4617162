import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amela_client.cluster.array_run import ArrayRun
from amela_client.errors import ManifestError, MergeError
from amela_client.journal import Journal, RunKey
from amela_client.manifest import Entry, Fault, Manifest
from amela_client.merge import errors_path, merge_results
from amela_client.share_merge import SharesReport, merge_shares
from hypothesis import given, settings
from hypothesis import strategies as st


def manifest_of(folder: Path, count: int, name: str = "data.json") -> Manifest:
    lines = [f'{{"audio_filepath": "/{number}.wav", "gain": 1.{number}0}}\n' for number in range(count)]
    (folder / name).write_text("\n".join(lines))
    return Manifest(folder / name)


def split(manifest: Manifest, shares: int, folder: Path) -> list[Path]:
    run = ArrayRun.split(manifest, shares, folder)
    return [run.share(task) for task in range(run.tasks)]


def counts(report: SharesReport) -> tuple[int, int]:
    return report.lines, report.shares


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
    assert lines_of(shares[1])[1]["amela_share"] == [4, 7, 9]


def test_names_sort_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shares = split(manifest_of(tmp_path, 101), 101, tmp_path)
    assert shares == sorted(shares)
    assert (shares[0].name, shares[100].name) == ("data_split_000.json", "data_split_100.json")


@settings(max_examples=30)
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
    report = merge_shares([f"{folder}/splits/*_split_*.json"], folder / "final.json")
    assert counts(report) == (count, len(shares))
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
    assert lines_of(shares[1]) == [{"audio_filepath": "/b.wav", "speaker": "y", "amela_share": [1, 2, 3]}]


def test_lines_with_a_fault_go_along_if_they_are_objects(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"audio_filepath": "/a.wav", "duration": -1}\n{"x": 1.50}\n')
    shares = split(Manifest(tmp_path / "data.json"), 2, tmp_path / "splits")
    merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert (tmp_path / "final.json").read_text() == (tmp_path / "data.json").read_text()


@pytest.mark.parametrize(
    ("content", "splits", "words"),
    [
        ('{"audio_filepath": "/a.wav"}\n{"broken\n', 2, "line 2: BAD_JSON"),
        ('{"audio_filepath": "/a.wav", "amela_share": [0, 1, 1]}\n', 1, "line 1 is a share's already"),
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


def test_shares_of_unknown_origin_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data_split_00.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"data_split_00\.json, which may hold results"):
        split(manifest_of(tmp_path, 4), 2, tmp_path)
    assert (tmp_path / "data_split_00.json").read_text() == "{}"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="file"):
        split(manifest_of(tmp_path, 2), 2, tmp_path / "file" / "splits")


def test_what_a_line_of_a_share_lacks_is_said_as_of_the_whole_manifest(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"path": "/a.wav"}\n{"audio_filepath": "b.wav", "duration": -1}\n')
    manifest = Manifest(tmp_path / "data.json")
    (share,) = split(manifest, 1, tmp_path / "splits")

    def said(manifest: Manifest) -> list[tuple[str, str | None]]:
        return [(item.message, item.audio_filepath) for item in manifest if isinstance(item, Fault)]

    assert said(Manifest(share)) == said(manifest)
    assert len(said(manifest)) == 2


def test_an_entry_that_repeats_one_of_another_share_is_a_fault_there_too(tmp_path: Path) -> None:
    lines = ['{"audio_filepath": "/a.wav"}', '{"audio_filepath": "/b.wav"}', '{"audio_filepath": "//a.wav"}']
    (tmp_path / "data.json").write_text("\n\n".join(lines))
    shares = split(Manifest(tmp_path / "data.json"), 3, tmp_path / "splits")
    kinds = [[type(item) for item in Manifest(share)] for share in shares]
    assert kinds == [[Entry], [Entry], [Fault]]
    (fault,) = Manifest(shares[2])
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.message) == (
        "DUPLICATE",
        "the same recording and stretch as on line 1; remove one",
    )


@pytest.fixture
def shares(tmp_path: Path) -> list[Path]:
    return split(manifest_of(tmp_path, 30), 3, tmp_path / "splits")


def rewrite(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def test_missing_lines_are_named_and_nothing_is_written(tmp_path: Path, shares: list[Path]) -> None:
    lines = shares[1].read_text().splitlines()
    rewrite(shares[1], lines[:3] + lines[5:])
    with pytest.raises(MergeError, match=r"2 of 30 entries are missing from 3 shares: 11, 14\."):
        merge_shares([f"{tmp_path}/splits/*.json"], tmp_path / "final.json")
    assert not (tmp_path / "final.json").exists()


def test_a_missing_share_is_noticed(tmp_path: Path, shares: list[Path]) -> None:
    shares[2].unlink()
    with pytest.raises(MergeError, match=r"10 of 30 entries are missing from 2 shares: 3, 6, 9, .*, 30\."):
        merge_shares([f"{tmp_path}/splits/*_split_*.json*"], tmp_path / "final.json")


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
        ('{"amela_share": [3, 3, 4]}', "which no split wrote"),
        ('{"amela_share": [-1, 3, 1]}', "which no split wrote"),
        ('{"amela_share": [1, 3]}', "which no split wrote"),
        ('{"amela_share": [1, 3, 2, 5]}', "which no split wrote"),
        ('{"amela_share": "0 of 3"}', "which no split wrote"),
        ('{"amela_share": [0, 31, 1]}', "not the shares of one split"),
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


def test_a_first_line_that_wants_more_entries_than_there_can_be_is_named(
    tmp_path: Path, shares: list[Path]
) -> None:
    rewrite(shares[0], ['{"amela_share": [0, 1000000000000, 1]}'])
    with pytest.raises(
        MergeError, match=r"data_split_00\.json, line 1 is one of 1000000000000 .* cannot hold"
    ):
        merge_shares([str(share) for share in shares], tmp_path / "final.json")


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
        assert counts(merge_shares([f"{tmp_path}/splits/*_split_*.json"], output)) == (30, 3)


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
    assert not list(tmp_path.glob("splits/*_split_*"))


# Members without spaces, escapes, a duplicate in another share, faults, a text that is there or empty.
MIXED = """\
{"audio_filepath":"/a.wav","n":1.0}

{"audio_filepath": "/b.wav" , "note": "\\u00e9 \\"quoted\\""}
{"audio_filepath": "/c.wav", "duration": -1}
{ "audio_filepath": "/a.wav" }
{"note": "no path"}
{"audio_filepath": "/d.wav", "text": "there", "n": 1e3}
{"audio_filepath": "/e.wav", "text": ""}
{"audio_filepath":"/f.wav"}
"""


def run_stage(manifest: Path, output: Path, *, in_place: bool = False) -> None:
    """Do what a client's run does, without servers: /b.wav fails, /d.wav has its text."""
    source = Manifest(manifest)
    with Journal.open(
        output.with_name("journal"), RunKey(source.digest, "transcribe"), restart=True
    ) as journal:
        for item in source:
            if isinstance(item, Fault) or "d.wav" in item.audio_filepath:
                continue
            if "b.wav" in item.audio_filepath:
                journal.record_failure(item.index, "AUDIO_CORRUPT", 'cannot "decode" it', transient=False)
            else:
                journal.record(item.index, {"text": f"what {item.audio_filepath} says", "words": ['"é"']})
        merge_results(source, journal, output, in_place=in_place, present=lambda entry: {})


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("tasks", [1, 3, 8])
def test_results_and_errors_of_shares_are_those_of_one_run_byte_for_byte(
    tmp_path: Path, tasks: int, in_place: bool
) -> None:
    for name in ("data.json", "one.json"):
        (tmp_path / name).write_text(MIXED)
    shares = split(Manifest(tmp_path / "data.json"), tasks, tmp_path / "splits")
    for share in shares:
        run_stage(share, share if in_place else share.parent / "results" / share.name, in_place=in_place)
    run_stage(tmp_path / "one.json", tmp_path / ("one.json" if in_place else "out.json"), in_place=in_place)
    merged = merge_shares(
        [f"{tmp_path}/splits/{'' if in_place else 'results/'}*.json*"], tmp_path / "final.json"
    )
    one = tmp_path / ("one.json" if in_place else "out.json")
    if in_place:
        # Lines that keep no result are copied as they are, spaces within the braces included.
        assert lines_of(tmp_path / "final.json") == lines_of(one)
    else:
        assert (tmp_path / "final.json").read_bytes() == one.read_bytes()
    assert merged.errors == tmp_path / "final.errors.jsonl"
    errors = errors_path(one, "transcribe" if in_place else None)
    assert merged.errors.read_bytes() == errors.read_bytes()
    assert (merged.lines, merged.quarantined) == (8 if in_place else 4, 4)


def test_an_entry_that_is_quarantined_twice_is_named(tmp_path: Path, shares: list[Path]) -> None:
    error = '{"line": 1, "reason": "R", "message": "m", "amela_share": [0, 30, 1]}\n'
    shares[0].with_name("data_split_00.errors.jsonl").write_text(error * 2)
    with pytest.raises(
        MergeError, match=r"entry 1 of 30 .*errors\.jsonl, line 1, and .*errors\.jsonl, line 2"
    ):
        merge_shares([str(share) for share in shares], tmp_path / "final.json")


def test_errors_of_the_stage_before_and_of_one_in_place_come_together(
    tmp_path: Path, shares: list[Path]
) -> None:
    _, *others = shares[0].read_text().splitlines(keepends=True)
    shares[0].write_text("".join(others))
    error = '{"line": %d, "reason": "R", "message": "m", "amela_share": [%d, 30, %d]}\n'
    shares[0].with_name("data_split_00.errors.jsonl").write_text(error % (1, 0, 1))
    second = json.loads(others[0])["amela_share"][0]
    shares[0].with_name("data_split_00.transcribe.errors.jsonl").write_text(error % (2, second, 2))
    report = merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert (report.lines, report.quarantined) == (29, 2)


def test_errors_of_another_output_are_not_replaced(tmp_path: Path, shares: list[Path]) -> None:
    for name in ("final.errors.jsonl", "final.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(MergeError, match=r"may be that of final\.jsonl"):
        merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert (tmp_path / "final.errors.jsonl").read_text() == "{}\n"


def test_an_error_that_is_not_of_the_split_is_named(tmp_path: Path, shares: list[Path]) -> None:
    shares[0].with_name("data_split_00.errors.jsonl").write_text(
        '{"line": 1, "reason": "R", "message": "m"}\n'
    )
    with pytest.raises(MergeError, match=r"data_split_00\.errors\.jsonl, line 1 has no amela_share"):
        merge_shares([str(share) for share in shares], tmp_path / "final.json")


def test_errors_of_an_earlier_merge_go_when_nothing_is_quarantined(
    tmp_path: Path, shares: list[Path]
) -> None:
    (tmp_path / "final.errors.jsonl").write_text("{}\n")
    assert merge_shares([str(share) for share in shares], tmp_path / "final.json").errors is None
    assert not (tmp_path / "final.errors.jsonl").exists()


def test_models_that_made_results_are_named(tmp_path: Path, shares: list[Path]) -> None:
    for share, fingerprint in zip(shares, "aab", strict=True):
        model = {"engine": "e", "name": "n", "fingerprint": fingerprint}
        rewrite(share, [json.dumps({**line, "asr_model": model}) for line in lines_of(share)])
    report = merge_shares([str(share) for share in shares], tmp_path / "final.json")
    assert report.models == {"asr_model": ["e n (fingerprint a)", "e n (fingerprint b)"]}

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random

import pytest
from amela_client.errors import ManifestError, MergeError
from amela_client.journal import Failure, Journal, Outcome, RunKey
from amela_client.jsonline import dumps, with_fields, without_fields
from amela_client.lines import MAX_LINE_BYTES
from amela_client.manifest import Entry, Manifest
from amela_client.merge import MergeReport, check_output, errors_path, merge_results
from hypothesis import given, settings
from hypothesis import strategies as st

CORRUPT = Failure("AUDIO_CORRUPT", "cannot decode /b.wav", transient=False)


def entry(path: str = "/a.wav", **fields: object) -> bytes:
    return json.dumps({"audio_filepath": path, **fields}).encode()


def merged(
    folder: Path,
    lines: Iterable[bytes],
    outcomes: dict[int, Outcome],
    *,
    in_place: bool = False,
    name: str = "data.json",
    present: Callable[[Entry], Mapping[str, object] | None] = lambda entry: None,
) -> MergeReport:
    """Merge outcomes that came in the order of `outcomes`."""
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    manifest = Manifest(folder / name)
    output = check_output(manifest, folder / (name if in_place else "out.json"), in_place=in_place)
    with Journal.open(folder / "journal", RunKey(manifest.digest, "transcribe"), interval=3600) as journal:
        for index, outcome in outcomes.items():
            if isinstance(outcome, Failure):
                journal.record_failure(index, outcome.reason, outcome.message, transient=outcome.transient)
            else:
                journal.record(index, outcome)
        return merge_results(manifest, journal, output, in_place=in_place, present=present)


def objects(path: Path | None) -> list[dict[str, object]]:
    assert path is not None
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_results_come_in_manifest_order_whatever_order_they_came_in(tmp_path: Path) -> None:
    lines = [entry(f"/{number}.wav", speaker=number) for number in range(5)]
    report = merged(tmp_path, lines, {index: {"text": str(index)} for index in (3, 1, 4, 0, 2)})
    assert objects(report.output) == [
        {"audio_filepath": f"/{number}.wav", "speaker": number, "text": str(number)} for number in range(5)
    ]
    assert (report.results, report.skipped, report.quarantined, report.errors) == (5, 0, 0, None)


def test_a_lines_own_fields_stay_as_they_are_spelled(tmp_path: Path) -> None:
    line = (
        '{ "audio_filepath":"/a.wav", "gain": 1.10, "big": 123456789012345678901234567890, "far": 1e400,'
        ' "nan": NaN, "twice": 1, "twice": 2, "name": "\\ud800 \\u00e9 é", "deep": [[{"text": "inner"}]] }'
    )
    report = merged(tmp_path, [line.encode()], {0: {"text": "hé", "odd": "\ud800"}})
    own, added = line.removesuffix(" }"), '"text": "hé", "odd": "\\ud800"}'
    # The escape in the line may hide a name, so its members are taken apart, but not respelled.
    result = report.output.read_text()
    assert result.endswith(added + "\n")
    for member in own[2:].split(", "):
        assert member.replace(": ", ":") in result.replace(": ", ":")


def test_a_field_that_is_there_already_is_replaced_in_its_place(tmp_path: Path) -> None:
    line = b'{"text": "old", "audio_filepath": "/a.wav", "t\\u0065xt": "older", "note": "\\"text\\""}'
    report = merged(tmp_path, [line], {0: {"text": "new", "model": "m"}})
    assert report.output.read_text() == (
        '{"text": "new", "audio_filepath": "/a.wav", "note": "\\"text\\"", "model": "m"}\n'
    )


def test_what_got_no_result_is_quarantined_with_line_path_and_reason(tmp_path: Path) -> None:
    lines = [entry("/a.wav"), b"", entry("/b.wav"), b'{"audio_filepath": "\xff"}', b"{}", entry("/b.wav")]
    report = merged(tmp_path, lines, {0: {"text": "a"}, 1: CORRUPT})
    assert objects(report.output) == [{"audio_filepath": "/a.wav", "text": "a"}]
    assert (report.results, report.quarantined, report.errors) == (1, 4, tmp_path / "out.errors.jsonl")
    corrupt, not_utf8, nothing, duplicate = objects(report.errors)
    assert corrupt == {
        "line": 3,
        "audio_filepath": "/b.wav",
        "reason": "AUDIO_CORRUPT",
        "message": "cannot decode /b.wav",
    }
    assert (not_utf8["line"], not_utf8["reason"]) == (4, "NOT_UTF8")
    assert not_utf8["raw"] == '{"audio_filepath": "\\xff"}'
    assert (nothing["line"], nothing["reason"]) == (5, "MISSING_AUDIO_FILEPATH")
    assert nothing.keys() == {"line", "reason", "message"}
    assert (duplicate["line"], duplicate["reason"], duplicate["audio_filepath"]) == (6, "DUPLICATE", "/b.wav")


def test_an_old_file_of_errors_goes_when_nothing_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "out.errors.jsonl").write_text("old\n")
    report = merged(tmp_path, [entry()], {0: {"text": ""}})
    assert report.errors is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "journal", "out.json"]


def test_skipped_entries_come_out_as_they_were(tmp_path: Path) -> None:
    lines = [entry("/a.wav", text="there"), entry("/b.wav")]
    report = merged(
        tmp_path, lines, {1: {"text": "new"}}, present=lambda item: {} if "text" in item.fields else None
    )
    assert report.output.read_bytes().splitlines()[0] == lines[0]
    assert (report.results, report.skipped) == (1, 1)


def test_what_was_there_before_can_be_named_in_the_line(tmp_path: Path) -> None:
    report = merged(tmp_path, [entry("/a.wav")], {}, present=lambda item: {"made": "/out/a.wav"})
    assert objects(report.output) == [{"audio_filepath": "/a.wav", "made": "/out/a.wav"}]
    assert (report.results, report.skipped) == (0, 1)


def test_in_place_every_line_stays_and_bad_ones_are_not_touched(tmp_path: Path) -> None:
    bad = [
        b'{"broken": ',
        b"\xff\xfe \x00",
        b" [1] ",
        entry("/a.wav", duration=-1),
        b'"' + b"x" * MAX_LINE_BYTES,
    ]
    lines = [entry("/a.wav", gain=0.10), *bad, entry("/b.wav", n=1.0), entry("/c.wav", text="there")]
    report = merged(
        tmp_path,
        lines,
        {6: CORRUPT, 0: {"text": "a"}},
        in_place=True,
        present=lambda item: {} if "text" in item.fields else None,
    )
    first, *rest = (tmp_path / "data.json").read_bytes().removesuffix(b"\n").split(b"\n")
    assert json.loads(first) == {"audio_filepath": "/a.wav", "gain": 0.1, "text": "a"}
    assert rest == lines[1:]
    assert (report.results, report.quarantined, report.skipped) == (1, 6, 1)
    assert report.errors == tmp_path / "data.transcribe.errors.jsonl"
    assert [line["line"] for line in objects(report.errors)] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("outcome", [{"text": "a"}, CORRUPT])
def test_in_place_the_errors_of_the_stage_before_stay(tmp_path: Path, outcome: Outcome) -> None:
    (tmp_path / "data.errors.jsonl").write_text("those of vad\n")
    report = merged(tmp_path, [entry()], {0: outcome}, in_place=True)
    assert (tmp_path / "data.errors.jsonl").read_text() == "those of vad\n"
    assert report.errors == (tmp_path / "data.transcribe.errors.jsonl" if outcome is CORRUPT else None)


def test_of_a_long_line_that_cannot_be_read_the_errors_have_the_beginning(tmp_path: Path) -> None:
    lines = [b"\xff" * (8 << 20), b"\xff" * 100, b"x" * (MAX_LINE_BYTES + 1)]
    long, short, longer = objects(merged(tmp_path, lines, {}).errors)
    assert (long["raw"], long["raw_bytes"]) == ("\\xff" * (64 << 10), (8 << 20) + 1)
    assert short["raw"] == "\\xff" * 100
    assert "raw_bytes" not in short
    assert (longer["raw"], longer["raw_bytes"]) == ("x" * 1024, MAX_LINE_BYTES + 2)


def test_csv_rows_come_out_as_json_lines(tmp_path: Path) -> None:
    rows = [b"audio_filepath,duration,speaker", b"/a.wav,2.50,x", b"/b.wav,,y"]
    report = merged(tmp_path, rows, {0: {"text": "a"}, 1: {"text": "b"}}, name="data.csv")
    assert objects(report.output) == [
        {"audio_filepath": "/a.wav", "duration": 2.5, "speaker": "x", "text": "a"},
        {"audio_filepath": "/b.wav", "duration": None, "speaker": "y", "text": "b"},
    ]


def test_a_run_that_is_not_finished_is_not_merged(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("before")
    with pytest.raises(MergeError, match="line 2 has neither"):
        merged(tmp_path, [entry("/a.wav"), entry("/b.wav")], {0: {"text": "a"}})
    assert (tmp_path / "out.json").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "journal", "out.json"]


def test_a_manifest_that_changed_during_the_run_stops_the_merge_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "data.json").write_bytes(entry())
    manifest = Manifest(tmp_path / "data.json")
    with Journal.open(tmp_path / "journal", RunKey(manifest.digest, "vad")) as journal:
        journal.record(0, {})
        (tmp_path / "data.json").write_bytes(entry("/other.wav"))
        with pytest.raises(ManifestError, match="changed"):
            merge_results(manifest, journal, tmp_path / "out.json")
        (tmp_path / "data.json").unlink()
        with pytest.raises(ManifestError, match="vanished"):
            merge_results(manifest, journal, tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_a_folder_that_vanished_is_an_error_that_says_where_the_results_are(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(entry())
    manifest = Manifest(tmp_path / "data.json")
    with Journal.open(tmp_path / "journal", RunKey(manifest.digest, "vad")) as journal:
        journal.record(0, {})
        with pytest.raises(MergeError, match=r"results are safe in .*journal"):
            merge_results(manifest, journal, tmp_path / "gone" / "out.json")


def test_a_replaced_file_keeps_its_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    target.write_text("before")
    target.chmod(0o640)
    (tmp_path / "out.json").symlink_to(target)
    merged(tmp_path, [entry()], {0: {"text": "a"}})
    assert (tmp_path / "out.json").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert objects(target) == [{"audio_filepath": "/a.wav", "text": "a"}]


def test_outputs_that_would_fail_or_cost_the_manifest_are_refused_before_the_run(tmp_path: Path) -> None:
    for name in ("data.json", "out.errors.jsonl"):
        (tmp_path / name).write_bytes(entry())
    (tmp_path / "data.csv").write_text("audio_filepath\n/a.wav\n")
    (tmp_path / "link.json").symlink_to(tmp_path / "data.json")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    manifest = Manifest(tmp_path / "data.json")
    for name, words in {
        "data.json": "--in-place",
        "link.json": "--in-place",
        "folder": "not a regular file",
        "pipe": "not a regular file",
        "nowhere/out.json": "there is no folder",
    }.items():
        with pytest.raises(MergeError, match=words):
            check_output(manifest, tmp_path / name)
    with pytest.raises(MergeError, match=r"where the errors of out\.json go"):
        check_output(Manifest(tmp_path / "out.errors.jsonl"), tmp_path / "out.json")
    with pytest.raises(MergeError, match="CSV"):
        check_output(Manifest(tmp_path / "data.csv"), tmp_path / "data.csv", in_place=True)
    assert check_output(manifest, tmp_path / "new.json") == tmp_path / "new.json"
    assert check_output(manifest, manifest.path, in_place=True) == manifest.path


def test_links_that_cannot_be_replaced_are_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(entry())
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere" / "out.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "new.json").symlink_to("made.json")
    (tmp_path / "good.errors.jsonl").symlink_to(tmp_path / "nowhere" / "errors")
    manifest = Manifest(tmp_path / "data.json")
    for name, words in {
        "dangling.json": r"no folder .*nowhere to write out\.json into, where .*dangling\.json leads",
        "loop.json": "symbolic links",
        "good.json": r"where .*good\.errors\.jsonl leads",
    }.items():
        with pytest.raises(MergeError, match=words):
            check_output(manifest, tmp_path / name)
    # This one works: it leads to a file that can be made.
    check_output(manifest, tmp_path / "new.json")
    (tmp_path / "made.errors.jsonl").mkdir()
    with pytest.raises(MergeError, match=r"made\.errors\.jsonl is not a regular file"):
        check_output(manifest, tmp_path / "made.json")


@pytest.mark.parametrize(
    ("length", "in_place"), [(233, False), (234, False), (256, False), (222, True), (223, True)]
)
def test_names_that_leave_no_room_are_refused_before_the_run(
    tmp_path: Path, length: int, in_place: bool
) -> None:
    stem = "é" * ((length - 5) // 2) + "x" * ((length - 5) % 2)
    name, fits = f"{stem}.json", length in (233, 222)
    if fits:
        report = merged(
            tmp_path, [entry()], {0: CORRUPT}, name=name if in_place else "data.json", in_place=in_place
        )
        assert report.errors
    (tmp_path / "data.json").write_bytes(entry())
    manifest = Manifest(tmp_path / "data.json")
    if fits:
        check_output(manifest, tmp_path / name, in_place=in_place, stage="transcribe")
    else:
        with pytest.raises(MergeError, match="choose a shorter name"):
            check_output(manifest, tmp_path / name, in_place=in_place, stage="transcribe")


def test_the_errors_of_another_output_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(entry())
    manifest = Manifest(tmp_path / "data.json")
    output, other, errors = (tmp_path / name for name in ("out.json", "out.jsonl", "out.errors.jsonl"))
    other.write_text("{}\n")
    check_output(manifest, output)
    errors.write_text("{}\n")
    with pytest.raises(MergeError, match=r"errors\.jsonl may be that of out\.jsonl"):
        check_output(manifest, output)
    # What was written last has the errors.
    output.write_text("{}\n")
    os.utime(other, ns=(1, 1))
    check_output(manifest, output)
    with pytest.raises(MergeError, match=r"errors\.jsonl may be that of out\.json,"):
        check_output(manifest, other)
    # A table has none.
    check_output(manifest, tmp_path / "out.csv", with_errors=False)


def test_a_folder_without_write_permission_is_refused_before_the_run(users_folder: Path) -> None:
    (users_folder / "data.json").write_bytes(entry())
    (users_folder / "folder").mkdir(mode=0o500)
    with pytest.raises(MergeError, match="cannot be written to"):
        check_output(Manifest(users_folder / "data.json"), users_folder / "folder" / "out.json")


@pytest.mark.parametrize(
    ("output", "errors"),
    [("out.json", "out.errors.jsonl"), ("out", "out.errors.jsonl"), ("a.b.json", "a.b.errors.jsonl")],
)
def test_errors_are_named_after_the_output(output: str, errors: str) -> None:
    assert errors_path(Path("/folder") / output) == Path("/folder") / errors


kinds = st.sampled_from(["result", "failure", "skipped", "bad JSON", "duplicate", "blank"])


@settings(max_examples=50)
@given(kinds=st.lists(kinds, max_size=12), random=st.randoms(use_true_random=False), in_place=st.booleans())
def test_every_line_comes_out_exactly_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], random: Random, in_place: bool
) -> None:
    kinds = ["result", *kinds]
    lines, outcomes = [], {}
    for number, kind in enumerate(kinds):
        if kind != "blank":
            index = sum(before != "blank" for before in kinds[:number])
            if kind == "result":
                outcomes[index] = {"text": str(number)}
            elif kind == "failure":
                outcomes[index] = CORRUPT
        lines.append(
            {"blank": b" ", "bad JSON": b"[%d" % number, "duplicate": entry("/0.wav", number=number)}.get(
                kind, entry(f"/{number}.wav", number=number, kind=kind)
            )
        )
    order = list(outcomes)
    random.shuffle(order)
    report = merged(
        tmp_path_factory.mktemp("merge"),
        lines,
        {index: outcomes[index] for index in order},
        in_place=in_place,
        present=lambda item: {} if item.fields.get("kind") == "skipped" else None,
    )
    quarantined = {"failure", "bad JSON", "duplicate"}
    left = {"result", "skipped"} | (quarantined if in_place else set())
    written = report.output.read_bytes().splitlines()
    assert len(written) == sum(kind in left for kind in kinds)
    expected = [
        (line, number) for number, (line, kind) in enumerate(zip(lines, kinds, strict=True)) if kind in left
    ]
    for got, (line, number) in zip(written, expected, strict=True):
        if kinds[number] == "result":
            assert json.loads(got) == {**json.loads(line), "text": str(number)}
        else:
            assert got == line
    errors = objects(report.errors) if report.errors else []
    assert [error["line"] for error in errors] == [
        n for n, kind in enumerate(kinds, 1) if kind in quarantined
    ]


names = st.text(st.characters(), max_size=3) | st.sampled_from(["text", 'te"xt', "t\\ext", "é"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
members = st.dictionaries(names, values, max_size=5)
layouts = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  : ")])


@given(own=members, added=members, layout=layouts, ascii_only=st.booleans())
def test_fields_are_added_and_taken_away_as_in_a_dictionary(
    own: dict[str, object], added: dict[str, object], layout: tuple[str, str], ascii_only: bool
) -> None:
    raw = f" {json.dumps(own, separators=layout, ensure_ascii=ascii_only)} "
    assert json.loads(with_fields(raw, added)) == {**own, **added}
    assert list(json.loads(with_fields(raw, added))) == list({**own, **added})
    without = {name: value for name, value in own.items() if name not in added}
    assert json.loads(without_fields(raw, added.keys())) == without


@given(values)
def test_every_value_becomes_one_line_of_utf_8(value: object) -> None:
    line = dumps(value)
    assert json.loads(line) == value
    assert b"\n" not in line.encode()

import codecs
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from amela_client.duplicates import FirstLines
from amela_client.errors import ManifestError
from amela_client.jsonline import with_fields
from amela_client.lines import MAX_LINE_BYTES
from amela_client.manifest import Entry, Fault, FaultReason, Manifest
from hypothesis import given, settings
from hypothesis import strategies as st

AnyT = TypeVar("AnyT")

GOOD = b'{"audio_filepath": "/corpus/good.wav"}'


def manifest_of(tmp_path: Path, content: bytes, name: str = "data.json", *, strict: bool = False) -> Manifest:
    path = tmp_path / name
    path.write_bytes(content)
    return Manifest(path, strict=strict)


def entry_with(**fields: object) -> bytes:
    return json.dumps({"audio_filepath": "/corpus/a.wav", **fields}).encode()


def test_entries_come_in_order_with_their_line_and_all_their_fields(tmp_path: Path) -> None:
    manifest = manifest_of(
        tmp_path,
        b'{"audio_filepath": "/a.wav", "duration": 3, "speaker": {"age": 2.5}}\n\n  \n'
        b'{"audio_filepath": "/b.wav", "offset": 1.5, "duration": 2.0}',
    )
    first, second = manifest
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.index, first.line, first.audio_filepath) == (0, 1, "/a.wav")
    assert (first.duration, first.offset) == (3.0, None)
    assert first.fields["speaker"] == {"age": 2.5}
    assert (second.index, second.line, second.offset, second.duration) == (1, 4, 1.5, 2.0)
    assert second.raw == '{"audio_filepath": "/b.wav", "offset": 1.5, "duration": 2.0}'


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n" + GOOD + b"\nnot JSON\n" + entry_with(offset=1))
    assert list(manifest) == list(manifest)


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        (b'{"audio_filepath": "/a.wav"', "BAD_JSON", "column 28"),
        (b'{"audio_filepath": "/a.wav"}{"audio_filepath": "/b.wav"}', "BAD_JSON", "Extra data"),
        (b"\0\0\0\0", "BAD_JSON", "column 1"),
        (b'{"audio_filepath": "/\xe9.wav"}', "NOT_UTF8", "byte 22 of the line is 0xe9"),
        (b'{"audio_filepath": "/a.wav", "x": ' + b"[" * 100_000, "TOO_DEEP", "nested"),
        (b'{"audio_filepath": "/a.wav", "x": ' + b"9" * 5_000 + b"}", "NUMBER_TOO_LONG", "digits"),
        (b'["/a.wav"]', "NOT_AN_OBJECT", "'/a.wav'"),
        (b'"/a.wav"', "NOT_AN_OBJECT", '"/a.wav"'),
        (b"null", "NOT_AN_OBJECT", "null"),
        (b"{}", "MISSING_AUDIO_FILEPATH", "no field"),
        (b'{"audio_path": "/a.wav"}', "MISSING_AUDIO_FILEPATH", "audio_path"),
        (b'{"audio_filepath": null}', "WRONG_TYPE", "null"),
        (b'{"audio_filepath": ["/a.wav"]}', "WRONG_TYPE", "['/a.wav']"),
        (b'{"audio_filepath": 7}', "WRONG_TYPE", "7"),
        (b'{"audio_filepath": ""}', "EMPTY_AUDIO_FILEPATH", "empty"),
        (b'{"audio_filepath": "  "}', "EMPTY_AUDIO_FILEPATH", "empty"),
        (b'{"audio_filepath": "/a\\u0000.wav"}', "BAD_PATH", "NUL"),
        (b'{"audio_filepath": "/a\\udce9.wav"}', "BAD_PATH", "\\udce9"),
        (b'{"audio_filepath": "/' + b"a" * 5_000 + b'"}', "BAD_PATH", "5,001 bytes"),
        (entry_with(duration="3.2"), "WRONG_TYPE", '"3.2"'),
        (entry_with(duration=True), "WRONG_TYPE", "true"),
        (entry_with(duration=[3]), "WRONG_TYPE", "[3]"),
        (entry_with(duration=float("nan")), "BAD_DURATION", "NaN"),
        (entry_with(duration=float("inf")), "BAD_DURATION", "Infinity"),
        (entry_with(duration=-1), "BAD_DURATION", "-1"),
        (entry_with(duration=1e9), "BAD_DURATION", "1000000000.0"),
        (entry_with(duration=10**400), "BAD_DURATION", "1000"),
        (b'{"audio_filepath": "/a.wav", "duration": 1e999}', "BAD_DURATION", "Infinity"),
        (entry_with(offset=-0.5), "BAD_OFFSET", "-0.5"),
        (entry_with(offset="0"), "WRONG_TYPE", '"0"'),
        (entry_with(offset=2, duration=0), "BAD_DURATION", "offset 2 s"),
        (GOOD, "DUPLICATE", "line 1"),
    ],
)
def test_a_bad_line_is_a_fault_that_says_why_and_the_lines_around_it_are_read(
    tmp_path: Path, line: bytes, reason: str, words: str
) -> None:
    before, fault, after = manifest_of(tmp_path, GOOD + b"\n" + line + b"\n" + entry_with(x=1) + b"\n")
    assert isinstance(before, Entry)
    assert isinstance(after, Entry)
    assert isinstance(fault, Fault)
    assert (fault.index, fault.line, fault.reason, fault.raw) == (1, 2, reason, line)
    assert words in fault.message
    fault.message.encode()


@pytest.mark.parametrize("seconds", [None, 0, 0.0, 3, 57_600.5])
def test_durations_that_make_sense_are_taken(tmp_path: Path, seconds: float | None) -> None:
    (entry,) = manifest_of(tmp_path, entry_with(duration=seconds))
    assert isinstance(entry, Entry)
    assert entry.duration == seconds


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.json", b"", "empty"),
        ("data.json", b" \n\r\n\t\n", "empty"),
        ("data.json", b"\xef\xbb\xbf\n", "no entries"),
        ("data.json", b" " * (1 << 20) + b"\n", "no entries"),
        ("data.json", b"[]", "JSON array"),
        ("data.json", b"[" + GOOD + b", " + GOOD + b"]\n", "jq -c '.[]' data.json"),
        ("data.json", b"[\n  " + GOOD + b",\n  " + GOOD + b"\n]\n", "JSON array"),
        ("data.json", b"[" + GOOD + b",\n" + GOOD + b"]\n", "JSON array"),
        ("data.json", b"[\n" + (GOOD + b",\n") * 40_000 + GOOD + b"]", "JSON array"),
        ("data.json", b"[" + (GOOD + b", ") * 40_000 + GOOD + b"]", "JSON array"),
        ("data.json", json.dumps(json.loads(GOOD), indent=2).encode(), "spread over several lines"),
        ("data.json", b'{\n"audio_filepath": "/a"\n}\n{\n"audio_filepath": "/b"\n}\n', "jq -c . data.json"),
        ("data.json", GOOD.decode().encode("utf-16"), "UTF-16"),
        ("data.json", GOOD.decode().encode("utf-16-le"), "iconv -f UTF-16 -t UTF-8 data.json"),
        ("data.json", GOOD.decode().encode("utf-16-be"), "UTF-16"),
        ("data.json", b"\x1f\x8b\x08\x00", "gzip"),
        ("data.json", b"PK\x03\x04", "zip"),
        ("data.json", b"RIFF\x24\x00\x00\x00WAVE", "is audio"),
        ("data.csv", b"", "empty"),
        ("data.csv", b"audio_filepath\n", "no entries"),
        ("data.csv", b"/a.wav,3.5\n/b.wav,2.0\n", "/a.wav, 3.5"),
        ("data.csv", b"audio_filepath;duration\n/a.wav;3\n", "separated by commas"),
        ("data.csv", b"audio_filepath,text,text\n/a.wav,a,b\n", "names text more than once"),
        ("data.csv", b"audio_filepath,\xe9\n/a.wav,a\n", "header cannot be read"),
        ("data.csv", b'audio_filepath,"x\n/a.wav,a\n', "header cannot be read"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        list(manifest_of(tmp_path, content, name))
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("first", [b'["a"]', b"[", b"{", b'["a",', b"[" * 5_000, b'{"audio_filepath": '])
def test_a_bad_first_line_does_not_condemn_the_file(tmp_path: Path, first: bytes) -> None:
    fault, entry = manifest_of(tmp_path, first + b"\n" + GOOD + b"\n")
    assert isinstance(fault, Fault)
    assert isinstance(entry, Entry)


def test_what_is_not_a_file_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no manifest"):
        Manifest(tmp_path / "nowhere.json")
    with pytest.raises(ManifestError, match="manifest build"):
        Manifest(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="write it to a file first"):
        Manifest(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest(tmp_path / ("a" * 300))


def test_byte_order_marks_and_carriage_returns_are_passed_over_with_a_warning(tmp_path: Path) -> None:
    manifest = manifest_of(
        tmp_path,
        codecs.BOM_UTF8 + entry_with(n=1) + b"\r\n\r\n" + codecs.BOM_UTF8 + entry_with(offset=1) + b"\r\n",
    )
    assert [item.line for item in manifest if isinstance(item, Entry)] == [1, 3]
    marks, returns = manifest.warnings
    assert "byte order marks" in marks
    assert "line 1 and 1 more" in marks
    assert "line 1 and 2 more" in returns


def test_relative_paths_start_at_the_manifests_folder_with_one_warning(tmp_path: Path) -> None:
    manifest = manifest_of(
        tmp_path, b'{"audio_filepath": "a.wav"}\n' + GOOD + b'\n{"audio_filepath": "b/c.wav"}'
    )
    paths = [item.audio_filepath for item in manifest if isinstance(item, Entry)]
    assert paths == [f"{tmp_path}/a.wav", "/corpus/good.wav", f"{tmp_path}/b/c.wav"]
    assert len(manifest.warnings) == 1
    assert str(tmp_path) in manifest.warnings[0]


def test_strictly_relative_paths_are_faults(tmp_path: Path) -> None:
    fault, entry = manifest_of(tmp_path, b'{"audio_filepath": "a.wav"}\n' + GOOD, strict=True)
    assert isinstance(fault, Fault)
    assert fault.reason is FaultReason.RELATIVE_PATH
    assert fault.audio_filepath == f"{tmp_path}/a.wav"
    assert isinstance(entry, Entry)


@pytest.mark.parametrize(
    ("first", "second", "is_duplicate"),
    [
        ({}, {}, True),
        ({"duration": 1}, {"duration": 2}, True),
        ({}, {"speaker": "other"}, True),
        ({}, {"offset": 0}, False),
        ({"offset": 1, "duration": 2}, {"offset": 1.0, "duration": 2.0}, True),
        ({"offset": 1, "duration": 2}, {"offset": 1, "duration": 3}, False),
        ({"offset": 1}, {"offset": 2}, False),
        ({"audio_filepath": "/c//a.wav"}, {"audio_filepath": "/c/./a.wav"}, True),
        ({"audio_filepath": "//a.wav"}, {"audio_filepath": "/a.wav"}, True),
        ({"audio_filepath": "/c/../a.wav"}, {"audio_filepath": "/a.wav"}, False),
    ],
)
def test_the_same_stretch_of_the_same_recording_is_a_duplicate(
    tmp_path: Path, first: dict[str, object], second: dict[str, object], is_duplicate: bool
) -> None:
    *_, item = manifest_of(tmp_path, entry_with(**first) + b"\n\n" + entry_with(**second))
    assert isinstance(item, Fault) == is_duplicate
    if isinstance(item, Fault):
        assert item.reason is FaultReason.DUPLICATE
        assert "line 1;" in item.message


def test_an_entry_with_a_fault_does_not_make_the_next_one_a_duplicate(tmp_path: Path) -> None:
    fault, entry = manifest_of(tmp_path, entry_with(duration=-1) + b"\n" + entry_with(duration=1))
    assert isinstance(fault, Fault)
    assert isinstance(entry, Entry)


def nested(times: int, opening: str = "[", closing: str = "]") -> bytes:
    """Make an entry with so many brackets around the value of a field."""
    value = opening * times + "0" + closing * times
    return b'{"audio_filepath": "/corpus/a.wav", "x": %b}' % value.encode()


def at_depth(frames: int, read: Callable[[], AnyT]) -> AnyT:
    """Call from below so many frames of Python's stack."""
    return read() if frames == 0 else at_depth(frames - 1, read)


@pytest.mark.parametrize("frames", [0, 500])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ('[{"\\"]": ', "}]")])
def test_how_deep_brackets_may_be_nested_does_not_depend_on_who_reads(
    tmp_path: Path, opening: str, closing: str, frames: int
) -> None:
    # The entry's own brackets make it 200 levels, and one more.
    lines = [nested(levels // len(closing), opening, closing) for levels in (199, 200)]
    manifest = manifest_of(tmp_path, b"\n".join(lines))
    entry, fault = at_depth(frames, lambda: list(manifest))
    assert isinstance(entry, Entry)
    assert isinstance(fault, Fault)
    assert fault.reason == "TOO_DEEP"
    assert "200 levels" in fault.message
    fields = {**entry.fields, "text": "he was"}
    assert json.loads(at_depth(frames, lambda: with_fields(entry.raw, fields))) == fields


def test_brackets_in_strings_or_side_by_side_are_not_nested(tmp_path: Path) -> None:
    fields = {"x": ["[" * 300, "\\", '"' + "{" * 300], "[" * 300: [[]] * 300, "y": [{"]": "]"}] * 300}
    (entry,) = manifest_of(tmp_path, entry_with(**fields))
    assert isinstance(entry, Entry)
    assert entry.fields == {"audio_filepath": "/corpus/a.wav", **fields}


def test_deep_brackets_under_a_name_that_is_repeated_count(tmp_path: Path) -> None:
    deep = nested(250)[:-1] + b', "x": 1}'
    (fault,) = manifest_of(tmp_path, deep)
    assert isinstance(fault, Fault)
    assert fault.reason == "TOO_DEEP"


def test_a_line_of_any_length_costs_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with path.open("wb") as file:
        file.write(GOOD + b"\n" + b'{"audio_filepath": "')
        start = file.tell() - 20
        file.seek(6 * MAX_LINE_BYTES, os.SEEK_CUR)
        file.write(b'"}\n' + entry_with(x=1))
    tracemalloc.start()
    try:
        _, fault, entry = Manifest(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_LINE_BYTES
    assert isinstance(fault, Fault)
    assert fault.reason is FaultReason.LINE_TOO_LONG
    assert len(fault.raw) < 2_000
    assert fault.span == (start, start + 6 * MAX_LINE_BYTES + 23)
    assert isinstance(entry, Entry)
    assert entry.line == 3


def test_a_csv_row_is_an_entry(tmp_path: Path) -> None:
    manifest = manifest_of(
        tmp_path,
        'audio_filepath, duration, offset, note\r\n/a.wav, 3.5, , "two\r\nlines, één"\r\n\r\n'
        "/b.wav,2,1.5,\r\n".encode(),
        "data.CSV",
    )
    first, second = manifest
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.line, first.duration, first.offset) == (2, 3.5, None)
    assert first.fields["note"] == "two\nlines, één"
    assert json.loads(first.raw) == first.fields
    assert (second.index, second.line, second.duration, second.offset) == (1, 5, 2.0, 1.5)


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        (b"/a.wav", "BAD_ROW", "1 cells; the header has 3"),
        (b"/a.wav,1,x,y", "BAD_ROW", "4 cells"),
        (b'/a.wav,1,"x"y', "BAD_ROW", "not CSV"),
        (b"/a.wav,1," + b"x" * 200_000, "BAD_ROW", "field limit"),
        (b"/a.wav,1,\xff", "NOT_UTF8", "0xff"),
        (b"/a.wav,three,x", "BAD_DURATION", "'three'"),
        (b"/a.wav,nan,x", "BAD_DURATION", "NaN"),
        (b"/a.wav,-3,x", "BAD_DURATION", "-3.0"),
        (b",1,x", "EMPTY_AUDIO_FILEPATH", "empty"),
        (b"/corpus/good.wav,1,x", "DUPLICATE", "line 2"),
    ],
)
def test_a_bad_csv_row_is_a_fault_and_the_next_one_is_read(
    tmp_path: Path, row: bytes, reason: str, words: str
) -> None:
    content = b"audio_filepath,duration,note\n/corpus/good.wav,1,x\n" + row + b"\n/b.wav,2,y\n"
    _, fault, after = manifest_of(tmp_path, content, "data.csv")
    assert isinstance(fault, Fault)
    assert (fault.index, fault.line, fault.reason) == (1, 3, reason)
    assert words in fault.message
    assert isinstance(after, Entry)


def test_a_quote_that_never_closes_is_one_fault_that_says_how_far_it_reaches(tmp_path: Path) -> None:
    content = b'audio_filepath,note\n/a.wav,"open\n/b.wav,x\n/c.wav,y\n'
    (fault,) = manifest_of(tmp_path, content, "data.csv")
    assert isinstance(fault, Fault)
    assert fault.line == 2
    assert "line 4" in fault.message


def test_a_manifest_that_changes_or_vanishes_during_the_run_is_noticed(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n")
    assert manifest.digest == Manifest(manifest.path).digest
    manifest.path.write_bytes(GOOD + b"\n" + entry_with(offset=3))
    with pytest.raises(ManifestError, match="changed"):
        list(manifest)
    manifest.path.unlink()
    with pytest.raises(ManifestError, match="vanished"):
        list(manifest)


def test_a_manifest_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n")
    reading = iter(manifest)
    next(reading)
    with manifest.path.open("ab") as file:
        file.write(entry_with(offset=3))
    with pytest.raises(ManifestError, match="changed"):
        list(reading)


def test_a_manifest_that_is_touched_while_it_is_read_is_the_same(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n" + entry_with(offset=3))
    assert manifest.digest
    for time in (1, 2):
        reading = iter(manifest)
        next(reading)
        os.utime(manifest.path, (time, time))
        assert len(list(reading)) == 1
    assert len(list(manifest)) == 2


def test_a_manifest_whose_content_changes_while_it_is_read_is_noticed_whatever_its_size(
    tmp_path: Path,
) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n" + entry_with(offset=3))
    assert manifest.digest
    reading = iter(manifest)
    next(reading)
    manifest.path.write_bytes(GOOD + b"\n" + entry_with(offset=4))
    os.utime(manifest.path, (1, 1))
    with pytest.raises(ManifestError, match="changed while it was read"):
        list(reading)


def test_a_manifest_that_is_written_again_as_it_was_is_the_same(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, GOOD + b"\n")
    before = list(manifest), manifest.digest
    manifest.path.unlink()
    manifest.path.write_bytes(GOOD + b"\n")
    os.utime(manifest.path, (1, 1))
    assert (list(manifest), manifest.digest) == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_fields_of_any_kind_come_through(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, object]], end: str, ascii_only: bool
) -> None:
    lines = [
        json.dumps(
            {**fields, "audio_filepath": f"/{number}", "duration": 1, "offset": 0}, ensure_ascii=ascii_only
        )
        for number, fields in enumerate(objects)
    ]
    content = end.join(lines).encode(errors="surrogatepass")
    items = list(manifest_of(tmp_path_factory.mktemp("manifest"), content))
    assert len(items) == len(lines)
    for number, (line, item) in enumerate(zip(lines, items, strict=True)):
        assert item.index == number
        if isinstance(item, Fault):
            # Lone surrogates cannot be written as UTF-8, only escaped.
            assert item.reason is FaultReason.NOT_UTF8
        else:
            assert item.raw == line
            assert json.dumps(item.fields) == json.dumps(json.loads(line))


@given(
    st.binary(max_size=300) | st.text(st.sampled_from('{}[]",:\\/\n\r 0aé\0'), max_size=80).map(str.encode)
)
@pytest.mark.parametrize("name", ["data.json", "data.csv"])
def test_no_content_can_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    if name == "data.csv":
        content = b"audio_filepath,duration\n" + content
    try:
        manifest = manifest_of(tmp_path_factory.mktemp("manifest"), content, name)
        items = list(manifest)
    except ManifestError:
        return
    assert [item.index for item in items] == list(range(len(items)))
    assert [item.line for item in items] == sorted({item.line for item in items})


@given(st.lists(st.integers(0, 500), max_size=2_000))
@settings(max_examples=20)
def test_the_line_of_the_first_of_equal_keys_is_found(keys: list[int]) -> None:
    seen = FirstLines()
    first: dict[int, int] = {}
    for line, key in enumerate(keys, start=1):
        assert seen.note(key, line) == first.get(key)
        first.setdefault(key, line)


def test_finding_duplicates_takes_a_few_bytes_for_each_key() -> None:
    count = 40_000
    tracemalloc.start()
    try:
        seen = FirstLines()
        assert not any(seen.note(f"/corpus/{number}.wav", number + 1) for number in range(count))
        size = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < 36 * count
    assert seen.note("/corpus/7777.wav", 1) == 7778

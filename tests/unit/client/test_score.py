"""Error rates of texts, of lines, and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from amela_client.cli import app
from amela_client.errors import ManifestError, ScoreError
from amela_client.score import Edits, LineScore, Total, Unscored, compare, english, score_lines
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

texts = st.lists(st.sampled_from(["ma", "mo", "baby", "a"]), max_size=6).map(" ".join)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def line(text: object, **fields: object) -> dict[str, object]:
    return {
        "audio_filepath": f"/{len(str(text))}-{len(fields)}-{hash(str(fields)) % 1000}.wav",
        "text": text,
        **fields,
    }


def scored(path: Path, **options: Any) -> list[LineScore | Unscored]:
    return list(score_lines(path, **options))


def score(*arguments: str | Path, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_words_and_characters_are_counted() -> None:
    # One substitution, one deletion, one insertion.
    words, characters = compare("the cat sat down", "a cat down now")
    assert (words.errors, words.length, words.rate) == (3, 4, 0.75)
    assert characters.length == len("the cat sat down")


def test_an_empty_reference_has_no_rate_but_what_was_heard_counts() -> None:
    words, characters = compare("", "uh huh")
    assert (words, characters) == (Edits(2, 0), Edits(6, 0))
    assert words.rate is None
    assert compare("", "") == (Edits(0, 0), Edits(0, 0))
    assert compare("one two", "")[0].rate == 1.0


@given(texts, texts)
def test_rates_are_right_at_their_ends_and_reference_and_length_agree(said: str, heard: str) -> None:
    words, _ = compare(said, heard)
    assert words.length == len(said.split())
    assert (words.errors == 0) == (said == heard)
    assert (
        abs(len(said.split()) - len(heard.split()))
        <= words.errors
        <= max(len(said.split()), len(heard.split()))
    )


def test_the_total_weighs_lines_by_their_length() -> None:
    total = Total()
    for words in (Edits(1, 1), Edits(0, 9), Edits(2, 0)):
        total.add(LineScore(1, None, words, Edits()))
    total.add(Unscored(2, "there is no text"))
    assert (total.words.rate, total.scored, total.unscored) == (0.3, 3, 1)


def test_the_reference_is_the_first_field_that_a_line_has(tmp_path: Path) -> None:
    path = write(
        tmp_path / "done.json",
        line("a b", text_ref="a b", transcription="x"),
        line("a b", transcription="a c"),
        line("a b", text_ref=None, transcription="a b c d"),
    )
    rates = [item.words.rate for item in scored(path) if isinstance(item, LineScore)]
    assert rates == [0.0, 0.5, 0.5]
    (only,) = [item for item in scored(path, references=["text"]) if item.line == 1]
    assert isinstance(only, LineScore) and only.words.rate == 0.0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (line("a"), "there is no reference in text_ref or transcription"),
        ({"audio_filepath": "/a.wav", "text_ref": "a"}, "there is no text"),
        (line(None, text_ref="a"), "there is no text"),
        (line(5, text_ref="a"), "text is 5, not a text"),
        (line("a", text_ref=["a"]), "text_ref is ['a'], not a text"),
        ('{"text": ', "BAD_JSON"),
        ("[1]", "NOT_AN_OBJECT"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named_and_the_others_are(
    tmp_path: Path, bad: dict[str, object] | str, said: str
) -> None:
    path = write(tmp_path / "done.json", bad, line("good", text_ref="good"))
    unscored, good = scored(path)
    assert isinstance(unscored, Unscored) and isinstance(good, LineScore)
    assert unscored.line == 1 and said in unscored.message
    result = score(path, code=3)
    assert f"line 1: not scored: {unscored.message}" in result.stderr
    assert "1 lines are not scored" in result.stderr


def test_what_is_wrong_with_the_audio_of_a_line_is_nothing_to_its_score(tmp_path: Path) -> None:
    same = {"audio_filepath": "/a.wav", "text": "a", "text_ref": "a"}
    path = write(tmp_path / "done.json", same, same, {"text": "b", "text_ref": "b"})
    assert [isinstance(item, LineScore) for item in scored(path)] == [True, True, True]


def test_whispers_normal_form_passes_over_case_punctuation_and_spelling(tmp_path: Path) -> None:
    normalize = english()
    assert normalize("He won't pay Mr. Brown twenty-two colours!") == normalize(
        "he will not pay mister brown 22 colors"
    )
    path = write(tmp_path / "done.json", line("Hello, World.", text_ref="HELLO WORLD"))
    assert "all: WER 1.0000" in score(path).stdout
    assert "all: WER 0.0000" in score(path, "--normalize").stdout


def test_lines_and_all_are_printed_with_their_rates(tmp_path: Path) -> None:
    path = write(
        tmp_path / "done.json",
        line("a b", said="a b"),
        line("a b", said="a c", speaker="x"),
        line("um", said=""),
    )
    out = score(path, "--reference", "said").stdout.splitlines()
    assert out[0].startswith("line 1: WER 0.0000  CER 0.0000  /")
    assert out[2].startswith("line 3: WER 1 of 0  CER 2 of 0  /")
    assert out[3] == "all: WER 0.5000  CER 0.5000  3 lines, 4 words"


def test_the_summary_for_programs_is_one_object(tmp_path: Path) -> None:
    path = write(tmp_path / "done.json", line("a b", text_ref="a c"), line("x"), line("um", text_ref=""))
    found = json.loads(score(path, "--json", code=3).stdout)
    assert [item.get("wer", "none") for item in found["lines"]] == [0.5, "none", None]
    assert found["lines"][1]["problem"].startswith("there is no reference")
    assert (found["all"]["scored"], found["all"]["unscored"], found["all"]["wer"]) == (2, 1, 1.0)
    assert (found["all"]["word_errors"], found["all"]["words"]) == (2, 2)


def test_a_file_without_anything_to_score_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "done.json", line("a"), line("b b"))
    result = score(path, code=1)
    assert isinstance(result.exception, ScoreError)
    assert "name the reference's field with --reference" in str(result.exception)
    assert json.loads(score(path, "--json", code=1).stdout)["all"]["wer"] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b'[{"text": "a"}]', "array"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio"),
        ("{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_cure(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "done.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=rf"(?i){said}"):
        scored(path)
    with pytest.raises(ManifestError, match="there is no manifest"):
        scored(tmp_path / "missing.json")

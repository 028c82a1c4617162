"""Word and character error rates of transcripts, line by line and in all."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jiwer

from amela_client.manifest import Entry, Fault, Manifest

REFERENCES = ("text_ref", "transcription")
"""Fields that may hold what was really said, the first that a line has counts."""

HYPOTHESIS = "text"

Normalizer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Edits:
    """How far a hypothesis is from its reference, in words or in characters."""

    errors: int = 0
    """Substitutions, deletions and insertions."""
    length: int = 0
    """Of the reference."""

    @property
    def rate(self) -> float | None:
        """Errors by length; None where the reference is empty."""
        return self.errors / self.length if self.length else None

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(self.errors + other.errors, self.length + other.length)


class LineScore(NamedTuple):
    """One line's distance from its reference."""

    line: int
    audio_filepath: str | None
    words: Edits
    characters: Edits


class Unscored(NamedTuple):
    """A line that cannot be scored, and why."""

    line: int
    message: str


@dataclass
class Total:
    """What scores come to: rates over all words and characters, so that long lines count for more."""

    scored: int = 0
    unscored: int = 0
    words: Edits = field(default_factory=Edits)
    characters: Edits = field(default_factory=Edits)

    def add(self, score: LineScore | Unscored) -> None:
        """Count one more line."""
        if isinstance(score, Unscored):
            self.unscored += 1
        else:
            self.scored += 1
            self.words += score.words
            self.characters += score.characters


def compare(reference: str, hypothesis: str) -> tuple[Edits, Edits]:
    """Count the edits between two texts, in words and in characters."""
    words = jiwer.process_words(reference, hypothesis)
    characters = jiwer.process_characters(reference, hypothesis)
    return _edits(words), _edits(characters)


def score_lines(
    path: str | os.PathLike[str],
    references: Sequence[str] = REFERENCES,
    normalize: Normalizer = str,
) -> Iterator[LineScore | Unscored]:
    """Score a file of results, a line at a time.

    Parameters
    ----------
    references
        Fields to look for the reference in, in this order.
    normalize
        Applied to both texts before they are compared, `english` for example.

    Raises
    ------
    ManifestError
        The file is no file of results.
    """
    for item in Manifest(path):
        fields = _fields(item)
        if fields is None:
            assert isinstance(item, Fault)
            yield Unscored(item.line, f"{item.reason}: {item.message}")
            continue
        reference = next((name for name in references if fields.get(name) is not None), None)
        problem = _problem(fields, references, reference)
        if problem:
            yield Unscored(item.line, problem)
        else:
            assert reference is not None
            said, heard = (normalize(str(fields[name])) for name in (reference, HYPOTHESIS))
            yield LineScore(item.line, item.audio_filepath, *compare(said, heard))


def english() -> Normalizer:
    """Return Whisper's normaliser of English.

    Lower case, no punctuation, contractions and numbers written in one way, American spelling: appendix C of
    Radford et al., *Robust Speech Recognition via Large-Scale Weak Supervision* (2022).
    """
    # Other commands, and scores of plain texts, need not wait for its tables.
    from whisper_normalizer.english import EnglishTextNormalizer  # type: ignore[import-untyped] # noqa: PLC0415

    normalizer: Normalizer = EnglishTextNormalizer()
    return normalizer


def _fields(item: Entry | Fault) -> Mapping[str, object] | None:
    if isinstance(item, Entry):
        return item.fields
    # What is wrong with its audio, or that it comes twice, is nothing to a score.
    fields: dict[str, object] | None = json.loads(item.text) if item.text is not None else None
    return fields


def _problem(fields: Mapping[str, object], references: Sequence[str], found: str | None) -> str:
    if found is None:
        return f"there is no reference in {' or '.join(references)}"
    for name in (found, HYPOTHESIS):
        value = fields.get(name)
        if value is None:
            return f"there is no {name}"
        if not isinstance(value, str):
            return f"{name} is {value!r:.60}, not a text"
    return ""


def _edits(output: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    changed = output.substitutions + output.deletions
    return Edits(changed + output.insertions, changed + output.hits)

"""From the pieces of a recording back to one transcript."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amela_common.errors import RequestError
from amela_common.voice.pieces import Piece

from amela_asr.engine import Recognition, Word

# Raised whenever this module makes another text of the same pieces.
RESULTS_VERSION = 2

# More words than anyone says in a second: where two pieces overlap, more than that is no overlap.
_FASTEST_SPEECH = 8.0
# Seconds by which two pieces may place the same word differently: two frames of a FastConformer.
_JITTER = 0.16


@dataclass(frozen=True)
class TranscribedPiece:
    """A piece and what was heard in it; times count from the start of the recording."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class FailedPiece:
    """A piece without text, and why."""

    start: float
    end: float
    error: RequestError


@dataclass(frozen=True)
class Stitched:
    """The pieces of a recording, in order."""

    pieces: tuple[TranscribedPiece, ...] = ()
    failures: tuple[FailedPiece, ...] = ()

    @property
    def text(self) -> str:
        """The whole text."""
        return " ".join(piece.text for piece in self.pieces if piece.text)

    @property
    def words(self) -> list[Word]:
        """All words, of the pieces that have them."""
        return [word for piece in self.pieces for word in piece.words or ()]


def stitch(pieces: Sequence[Piece], outcomes: Sequence[Recognition | RequestError]) -> Stitched:
    """Put together what was heard in each piece.

    Where a piece overlaps the one before it, what both heard is kept once.

    Parameters
    ----------
    pieces
        In order.
    outcomes
        Of each piece, its recognition, with times from the piece's own start, or its failure.
    """
    transcribed: list[TranscribedPiece] = []
    failed: list[FailedPiece] = []
    for piece, outcome in zip(pieces, outcomes, strict=True):
        if isinstance(outcome, RequestError):
            failed.append(FailedPiece(piece.start, piece.end, outcome))
            continue
        heard = _placed(piece, outcome)
        if piece.overlaps_previous and transcribed and transcribed[-1].end > piece.start:
            transcribed[-1], heard = _resolve_overlap(transcribed[-1], heard)
        transcribed.append(heard)
    return Stitched(tuple(transcribed), tuple(failed))


def _placed(piece: Piece, recognition: Recognition) -> TranscribedPiece:
    words = recognition.words
    if words is not None:
        words = tuple(
            word._replace(start=piece.start + word.start, end=piece.start + word.end) for word in words
        )
    return TranscribedPiece(piece.start, piece.end, recognition.text, words, recognition.confidence)


def _resolve_overlap(
    before: TranscribedPiece, after: TranscribedPiece
) -> tuple[TranscribedPiece, TranscribedPiece]:
    if before.words is None or after.words is None:
        return _without_repetition(before, after)

    # Each side is right about its own half of the overlap. Near the middle each may place the same word
    # a little differently, in both halves or in none: the left side's place counts for both.
    middle = (after.start + before.end) / 2
    shared = [word for word in before.words if word.end > after.start - _JITTER]
    left = tuple(word for word in before.words if _middle(word) < middle)
    right = tuple(word for word in after.words if _middle(_counterpart(word, shared) or word) >= middle)
    return _with_words(before, left), _with_words(after, right)


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _counterpart(word: Word, others: Sequence[Word]) -> Word | None:
    """Find what the other side made of the same sound."""
    same = (other for other in others if _is_same_sound(word, other))
    return min(same, key=lambda other: abs(_middle(other) - _middle(word)), default=None)


def _is_same_sound(word: Word, other: Word) -> bool:
    near = abs(_middle(word) - _middle(other)) <= _JITTER
    common = min(word.end, other.end) - max(word.start, other.start)
    # One side may have misheard or clipped it.
    share = 2 * common > min(word.end - word.start, other.end - other.start)
    return share or (near and _comparable([word.text]) == _comparable([other.text]))


def _with_words(piece: TranscribedPiece, words: tuple[Word, ...]) -> TranscribedPiece:
    if words == piece.words:
        return piece
    return replace(piece, words=words, text=" ".join(word.text for word in words))


def _without_repetition(
    before: TranscribedPiece, after: TranscribedPiece
) -> tuple[TranscribedPiece, TranscribedPiece]:
    """Keep once what `before` ends and `after` begins with: the run on which most of their tokens agree.

    The last token of `before` and the first of `after` may be what is left of a word that was cut in
    two: of these the other side's is kept.
    """
    tokens, following = before.text.split(), after.text.split()
    left, right = _comparable(tokens), _comparable(following)
    most = min(len(left), len(right), round((before.end - after.start) * _FASTEST_SPEECH))
    count = max(range(1, most + 1), key=lambda run: _likeness(left[-run:], right[:run]), default=0)
    if not count or not _likeness(left[-count:], right[:count])[0]:
        return before, after
    if left[-1] != right[count - 1]:
        before = replace(before, text=" ".join(tokens[:-1]))
        count -= 1
    return before, replace(after, text=" ".join(following[count:]))


def _likeness(left: list[str], right: list[str]) -> tuple[bool, int, int]:
    """Rate how likely it is that two sides are the same stretch; False comes first if they cannot be."""
    equal = [one == other for one, other in zip(left, right, strict=True)]
    agreed = sum(equal)
    if not agreed or not all(equal[1:-1]):
        return False, 0, 0
    # A single common word is too little to take any other word for a clipped one.
    may_begin = equal[0] or agreed > 1 or left[0].endswith(right[0])
    may_end = equal[-1] or agreed > 1 or right[-1].startswith(left[-1])
    return may_begin and may_end, 2 * agreed - len(equal), agreed


def _comparable(tokens: list[str]) -> list[str]:
    return [token.strip(".,;:!?…\"'").lower() for token in tokens]

"""From the pieces of a recording back to one transcript."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amela_common.errors import RequestError
from amela_common.voice.pieces import Piece

from amela_asr.engine import Recognition, Word

# Raised whenever this module makes another text of the same pieces.
RESULTS_VERSION = 1

# More words than anyone says in a second: where two pieces overlap, more than that is no overlap.
_FASTEST_SPEECH = 8.0


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
        return before, _without_repetition(before, after)

    # A word belongs to the side of the overlap's middle where its own middle lies. A word on that
    # very middle may be placed a little differently by each side: the right side therefore begins
    # after the left side's last word, so that it is neither lost nor doubled.
    middle = (after.start + before.end) / 2
    left = tuple(word for word in before.words if _middle(word) < middle)
    border = left[-1].end if left else after.start
    right = tuple(word for word in after.words if _middle(word) > border)
    return _with_words(before, left), _with_words(after, right)


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _with_words(piece: TranscribedPiece, words: tuple[Word, ...]) -> TranscribedPiece:
    if words == piece.words:
        return piece
    return replace(piece, words=words, text=" ".join(word.text for word in words))


def _without_repetition(before: TranscribedPiece, after: TranscribedPiece) -> TranscribedPiece:
    """Drop from the start of `after` the longest run of tokens that `before` ends with."""
    tokens = after.text.split()
    left, right = _comparable(before.text.split()), _comparable(tokens)
    most = min(len(left), len(right), round((before.end - after.start) * _FASTEST_SPEECH))
    for count in range(most, 0, -1):
        if left[-count:] == right[:count]:
            return replace(after, text=" ".join(tokens[count:]))
    return after


def _comparable(tokens: list[str]) -> list[str]:
    return [token.strip(".,;:!?…\"'").lower() for token in tokens]

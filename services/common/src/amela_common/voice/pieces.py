"""Which stretches of a recording a recogniser is given, so that it hears speech and no piece is too long."""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from amela_common.voice.segmentation import TIME_TOLERANCE, Segment


class Piece(NamedTuple):
    """A stretch of a recording for one pass of a recogniser.

    Attributes
    ----------
    start, end
        Seconds from the start of the recording.
    overlaps_previous
        The cut before this piece goes through speech, and both sides hold the speech around it.
    """

    start: float
    end: float
    overlaps_previous: bool = False

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


def plan_pieces(
    segments: list[Segment],
    duration: float,
    *,
    max_piece: float = 30.0,
    min_pause: float = 0.3,
    max_pause: float = 1.0,
    overlap: float = 1.0,
) -> list[Piece]:
    """Gather segments into pieces of at most `max_piece` seconds.

    A pause longer than `max_pause` ends a piece, and each end of a piece keeps at most
    ``min_pause / 2`` of the silence around it. Where speech goes on for longer than a piece may last,
    the cut falls into the longest pause of the piece's second half, or else into its last pause.
    Speech without any pause of `min_pause` is cut into equal pieces that overlap.

    Parameters
    ----------
    segments
        Speech, in order and without overlap.
    duration
        Length of the recording in seconds.
    max_piece
        Longest piece in seconds.
    min_pause
        Shortest pause that may be cut, in seconds.
    max_pause
        Longest pause inside a piece, in seconds.
    overlap
        What two pieces share where speech itself is cut, in seconds.

    Raises
    ------
    ValueError
        If no plan can keep to these lengths.
    """
    if not 0 <= overlap < max_piece / 3:
        raise ValueError(f"overlap must be 0 s or more and below a third of {max_piece} s, not {overlap} s")
    if not 0 < min_pause <= max_pause:
        raise ValueError(f"min_pause must be above 0 s and at most {max_pause} s, not {min_pause} s")
    units = [
        unit
        for stretch in _uncuttable(segments, duration, min_pause)
        for unit in _equal_parts(stretch, max_piece, overlap)
    ]
    pieces: list[Piece] = []
    first = 0
    while first < len(units):
        # Neighbours have taken min_pause of the pause between them for themselves.
        last = _last_unit(units, first, max_piece, max_pause - min_pause)
        pieces.append(units[first]._replace(end=units[last].end))
        first = last + 1
    return pieces


def _uncuttable(segments: list[Segment], duration: float, min_pause: float) -> Iterator[Piece]:
    """Join segments across pauses too short to cut, and give each stretch the silence that it keeps."""
    cuts = [
        index
        for index, (before, after) in enumerate(pairwise(segments), start=1)
        if after.start - before.end >= min_pause - TIME_TOLERANCE
    ]
    keep = min_pause / 2
    earliest = 0.0
    for first, end in pairwise([0, *cuts, len(segments)] if segments else []):
        following = segments[end].start if end < len(segments) else duration
        latest = (segments[end - 1].end + following) / 2 if end < len(segments) else duration
        yield Piece(
            start=max(segments[first].start - keep, earliest),
            end=min(segments[end - 1].end + keep, latest),
        )
        earliest = latest


def _equal_parts(stretch: Piece, max_piece: float, overlap: float) -> Iterator[Piece]:
    """Cut a stretch without usable pauses into as few parts of equal length as can be."""
    count = max(1, ceil((stretch.duration - overlap - TIME_TOLERANCE) / (max_piece - overlap)))
    length = (stretch.duration + (count - 1) * overlap) / count
    for index in range(count):
        start = stretch.start + index * (length - overlap)
        yield Piece(
            start=start,
            end=stretch.end if index == count - 1 else start + length,
            overlaps_previous=index > 0,
        )


def _last_unit(units: list[Piece], first: int, max_piece: float, max_gap: float) -> int:
    """Find the unit that ends the piece that begins with unit `first`."""
    start = units[first].start
    best, longest = first, 0.0
    for index in range(first, len(units) - 1):
        unit, after = units[index], units[index + 1]
        gap = after.start - unit.end
        if after.overlaps_previous or gap > max_gap + TIME_TOLERANCE:
            return index
        if unit.end - start <= max_piece / 2:
            best = index
        elif gap >= longest:
            best, longest = index, gap
        if after.end - start > max_piece + TIME_TOLERANCE:
            return best
    return len(units) - 1

"""Words with times and confidences from what a CTC model emits, frame by frame.

NeMo has times of its own for CTC, but begins each token where the one before it was emitted, so that
a word's time takes in the pause before it; and its confidences do not work for letters.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amela_asr.engine import Word

# SentencePiece's mark of a word's beginning.
_MARK = "\u2581"


class Emission(NamedTuple):
    """A token on the best path.

    Attributes
    ----------
    first, end
        The frames that emit it: from `first` to before `end`.
    log_prob
        Mean of its log-probability over these frames.
    """

    token: int
    first: int
    end: int
    log_prob: float


def best_path(log_probs: NDArray[np.floating], blank: int) -> list[Emission]:
    """Collapse the likeliest token of each frame: repetitions are one token, blanks none.

    Parameters
    ----------
    log_probs
        float[frames, tokens], natural logarithms.
    blank
        The blank's position among the tokens.
    """
    tokens = log_probs.argmax(axis=1)
    best = log_probs.max(axis=1)
    borders = np.flatnonzero(np.diff(tokens)) + 1
    edges = [0, *borders.tolist(), len(tokens)] if len(tokens) else []
    return [
        Emission(int(tokens[first]), first, end, float(best[first:end].mean()))
        for first, end in pairwise(edges)
        if tokens[first] != blank
    ]


def words_of(
    emissions: Sequence[Emission], vocabulary: Sequence[str], text: str, frame_seconds: float
) -> tuple[Word, ...]:
    """Group emissions into words.

    Parameters
    ----------
    vocabulary
        The tokens as strings: letters with a space between words, or SentencePiece's pieces.
    text
        The recognised text, whose words are taken as they stand.
    frame_seconds
        How far apart frames are.

    Returns
    -------
    tuple of Word
        A word lasts from its first token's first frame to its last token's last one. Its
        confidence is the geometric mean of its tokens' probabilities.
    """
    groups: list[list[Emission]] = []
    begins = True
    for emission in emissions:
        spelling = vocabulary[emission.token]
        if spelling == " ":
            begins = True
            continue
        content = spelling.removeprefix(_MARK)
        begins = begins or spelling.startswith(_MARK)
        if not content:
            continue
        # Punctuation belongs to the word before it, also where a model emits it apart.
        if begins and (any(map(str.isalnum, content)) or not groups):
            groups.append([])
        begins = False
        groups[-1].append(emission)
    spelled = text.split()
    if len(spelled) != len(groups):
        spelled = [_spell(group, vocabulary) for group in groups]
    return tuple(
        Word(
            word,
            group[0].first * frame_seconds,
            group[-1].end * frame_seconds,
            float(np.exp(np.mean([emission.log_prob for emission in group]))),
        )
        for word, group in zip(spelled, groups, strict=True)
    )


def _spell(group: Sequence[Emission], vocabulary: Sequence[str]) -> str:
    return "".join(vocabulary[emission.token] for emission in group).replace(_MARK, "")

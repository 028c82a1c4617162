"""When a language model does not stop: the same words over and over, or tokens up to the limit."""

from collections.abc import Sequence

# Longest phrase, in tokens, whose repetition is looked for.
_LONGEST_PHRASE = 32
# People say a word four times and a number eight times; nobody goes on for so many tokens.
_MOST_REPETITIONS = 8
_FEWEST_TOKENS = 24


def repetitions(tokens: Sequence[int]) -> tuple[int, int]:
    """Find the phrase that a sequence ends with again and again.

    Returns
    -------
    tuple of int
        The phrase's length in tokens and how often it stands at the end, for the phrase whose
        repetitions cover the most tokens; (0, 0) for an empty sequence.
    """
    best = (0, 0)
    for length in range(1, min(_LONGEST_PHRASE, len(tokens)) + 1):
        phrase = tokens[-length:]
        count = 1
        while tokens[-(count + 1) * length : -count * length] == phrase:
            count += 1
        if length * count > best[0] * best[1] and (count > 1 or best == (0, 0)):
            best = (length, count)
    return best


def runs_away(tokens: Sequence[int], finished: bool) -> str | None:
    """Say what is wrong with an output; None if nothing is.

    Parameters
    ----------
    finished
        The model ended it itself. If not, it was cut at the limit of tokens.
    """
    length, count = repetitions(tokens)
    if count > _MOST_REPETITIONS and length * count >= _FEWEST_TOKENS:
        return f"it ends with the same {length} tokens {count} times"
    if not finished:
        return f"it did not end within {len(tokens)} tokens"
    return None

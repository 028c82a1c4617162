"""Options that calls carry as text."""

from typing import Annotated

import typer

from amela_client.requests import VoicePart

_INDICES = 1 << 32


def _text(given: str | None) -> str | None:
    # A shell passes on bytes of any kind, and Python takes those that are no UTF-8 as half characters.
    try:
        (given or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(
            f"{given!a} is not valid Unicode, which calls must be: type it in UTF-8"
        ) from None
    return given


def _name_or_index(given: str | None) -> str | None:
    # The contract carries no other index, and Python reads no number of thousands of digits.
    if given and given.isdecimal() and (len(given) > 10 or int(given) >= _INDICES):
        raise typer.BadParameter(f"{given:.20} is no index: they go from 0 to {_INDICES - 1:,}")
    return _text(given)


Language = Annotated[
    str,
    typer.Option(
        metavar="TAG",
        help="Language spoken, like en or fr-CA. Default: the model's own choice.",
        callback=_text,
    ),
]
Prompt = Annotated[
    str,
    typer.Option(help="Instruction, for models that take one. Default: the model's own.", callback=_text),
]
Speaker = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|INDEX",
        help="Voice to speak with, as the server has it. Default: the first.",
        callback=_name_or_index,
    ),
]
Style = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|INDEX",
        help="Style to speak in, as the server has it. Default: the first.",
        callback=_name_or_index,
    ),
]


def voice_part(given: str | None) -> VoicePart:
    """Read a speaker or a style: digits are an index."""
    return int(given) if given and given.isdecimal() else given

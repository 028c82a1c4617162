"""``amela-client score``: error rates of transcripts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from amela_client.errors import ScoreError
from amela_client.score import REFERENCES, Edits, LineScore, Total, Unscored, english, score_lines

SOME_UNSCORED = 3


def score_command(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="What `transcribe` wrote.")],
    *,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help=f"Field with what was said. Default: {', else '.join(REFERENCES)}."
        ),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Bring both texts into Whisper's normal form of English first."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the word and character error rates of transcripts, of each line and of all together.

    ```
    amela-client score done.json --normalize
    ```

    Without --normalize texts are compared as they are, case and punctuation included.

    Exit code 0: all lines have a score; 3: some lack a text or a reference, and are named; 1: other errors.
    """
    total = Total()
    scores = score_lines(results, (reference,) if reference else REFERENCES, english() if normalize else str)
    if as_json:
        print('{"lines": [', end="")
    for score in scores:
        if as_json:
            print(
                ",\n  " if total.scored + total.unscored else "\n  ", json.dumps(_line(score)), sep="", end=""
            )
        elif isinstance(score, Unscored):
            typer.echo(f"line {score.line}: not scored: {score.message}", err=True)
        else:
            print(f"line {score.line}: {_rates(score)}  {score.audio_filepath or ''}".rstrip())
        total.add(score)
    if as_json:
        print(f'\n], "all": {json.dumps(_summary(total))}}}')
    if not total.scored:
        raise ScoreError(
            f"no line of {results} has both a text and a reference; name the reference's field with"
            " --reference"
        )
    if not as_json:
        print(f"all: {_rates(total)}  {total.scored:,} lines, {total.words.length:,} words")
    if total.unscored:
        typer.echo(f"{total.unscored:,} lines are not scored", err=True)
        raise typer.Exit(SOME_UNSCORED)


def _rates(score: LineScore | Total) -> str:
    return f"WER {_shown(score.words)}  CER {_shown(score.characters)}"


def _shown(edits: Edits) -> str:
    return f"{edits.rate:.4f}" if edits.rate is not None else f"{edits.errors} of 0"


def _line(score: LineScore | Unscored) -> dict[str, object]:
    if isinstance(score, Unscored):
        return {"line": score.line, "problem": score.message}
    return {"line": score.line, "audio_filepath": score.audio_filepath, **_numbers(score)}


def _summary(total: Total) -> dict[str, object]:
    return {"scored": total.scored, "unscored": total.unscored, **_numbers(total)}


def _numbers(score: LineScore | Total) -> dict[str, object]:
    return {
        "wer": score.words.rate,
        "cer": score.characters.rate,
        "word_errors": score.words.errors,
        "words": score.words.length,
        "character_errors": score.characters.errors,
        "characters": score.characters.length,
    }

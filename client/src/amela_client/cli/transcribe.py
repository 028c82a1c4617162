"""``amela-client transcribe``: a text for every recording of a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import connection, running, text_options
from amela_client.endpoint import Trust
from amela_client.stages import Transcription


def transcribe_command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the results go. Default: MANIFEST with .transcribed.json at its end.",
        ),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the texts into MANIFEST, which is replaced at the end.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Transcribe entries that have a text as well.")
    ] = False,
    words: Annotated[bool, typer.Option("--words", help="Add words with their times.")] = False,
    segments: Annotated[
        bool, typer.Option("--segments", help="Add the pieces that the engine saw, with their times.")
    ] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Add confidences to words and segments.")
    ] = False,
    language: text_options.Language = "",
    prompt: text_options.Prompt = "",
    max_new_tokens: Annotated[
        int,
        # The most that the contract can carry.
        typer.Option(
            min=0, max=(1 << 32) - 1, help="Most tokens for one piece of audio. 0: the model's own limit."
        ),
    ] = 0,
    channel: running.Channel = None,
    tasks: running.Tasks = None,
    task_id: running.TaskId = None,
    strict: running.Strict = False,
    restart: running.Restart = False,
    mix_models: running.MixModels = False,
    quiet: running.Quiet = False,
    as_json: running.Json = False,
    server: connection.Server = None,
    registry: connection.Registry = None,
    local: connection.Local = False,
    wait: connection.Wait = 10.0,
    certificate: connection.Certificate = None,
    token: connection.Token = None,
    client_certificate: connection.ClientCertificate = None,
    client_key: connection.ClientKey = None,
) -> None:
    """Transcribe the recordings of a manifest.

    ```
    amela-client transcribe data.json -o done.json --local
    ```

    Each line comes out as it was, with its `text`; entries that have one are passed over. What
    cannot be transcribed goes to done.errors.jsonl, with the reason. If the run is stopped, the same command
    goes on where it was.

    Exit code 0: all done; 3: some entries quarantined; 2: wrong usage; 130: Ctrl-C; 1: other errors.
    """
    if in_place and output is not None:
        raise typer.BadParameter("--in-place writes to MANIFEST: leave out --output, or --in-place")
    if confidence and not (words or segments):
        raise typer.BadParameter("--confidence is about words and segments: add --words or --segments")
    share = running.share_of(tasks, task_id)
    if in_place and share:
        raise typer.BadParameter("--in-place is for whole manifests: leave it out, or --tasks and --task-id")
    default = manifest if in_place else manifest.with_name(f"{manifest.stem}.transcribed.json")
    stage = Transcription(
        words=words,
        segments=segments,
        confidence=confidence,
        language=language,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        channel=channel,
        force=force,
    )
    results = output or default
    job = running.Job(
        stage, manifest, share.of(results) if share else results, in_place, strict, restart, as_json, share
    )
    servers = connection.choose(
        server,
        registry,
        local=local,
        wait=wait,
        trust=Trust(certificate, token, client_certificate, client_key),
        mix_models=mix_models,
    )
    running.run_and_exit(job, servers, quiet=quiet)

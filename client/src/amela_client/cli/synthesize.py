"""``amela-client synthesize``: audio of every line of units."""

from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import connection, running, text_options
from amela_client.endpoint import Trust
from amela_client.sts_stages import Synthesis


def synthesize_command(
    manifest: Annotated[
        Path, typer.Argument(metavar="UNITS", help="What `encode` wrote, or lines like it from elsewhere.")
    ],
    *,
    output: running.OutputFolder,
    listing: running.Listing = None,
    speaker: text_options.Speaker = None,
    style: text_options.Style = None,
    predict_durations: Annotated[
        bool,
        typer.Option(
            "--predict-durations", help="Let the vocoder say how long units last, whatever UNITS says."
        ),
    ] = False,
    force: running.Remake = False,
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
    """Make audio of units.

    ```
    amela-client synthesize units.jsonl -o voices
    ```

    Each line has `units`, `durations` and an `audio_filepath`, which names the result and need not be there.
    The rest is as with resynthesize.

    Exit code 0: all done; 3: some entries quarantined; 2: wrong usage; 130: Ctrl-C; 1: other errors.
    """
    servers = connection.choose(
        server,
        registry,
        local=local,
        wait=wait,
        trust=Trust(certificate, token, client_certificate, client_key),
        mix_models=mix_models,
    )
    share = running.share_of(tasks, task_id)
    stage = Synthesis(
        mirror=running.plan_files(manifest, output, ".wav", strict=strict),
        speaker=text_options.voice_part(speaker),
        style=text_options.voice_part(style),
        predict_durations=predict_durations,
        force=force,
    )
    results = listing or output / "manifest.json"
    job = running.Job(
        stage,
        manifest,
        share.of(results) if share else results,
        strict=strict,
        restart=restart,
        as_json=as_json,
        share=share,
    )
    running.run_and_exit(job, servers, quiet=quiet)

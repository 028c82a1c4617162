"""``amela-client resynthesize``: every recording of a manifest through units, in another voice."""

from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import connection, running, text_options
from amela_client.endpoint import Trust
from amela_client.sts_stages import Resynthesis


def resynthesize_command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")],
    *,
    output: running.OutputFolder,
    listing: running.Listing = None,
    speaker: text_options.Speaker = None,
    style: text_options.Style = None,
    force: running.Remake = False,
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
    """Resynthesize the recordings of a manifest.

    ```
    amela-client resynthesize data.json -o voices --speaker ex02 --style whisper
    ```

    The WAV files lie in DIR as the recordings do in the folder that they have in common. Files that are
    there are complete, and are not made again. DIR/manifest.json has the manifest's lines with the files'
    names; what failed goes to DIR/manifest.errors.jsonl. If the run is stopped, the same command goes on
    where it was.

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
    stage = Resynthesis(
        mirror=running.plan_files(manifest, output, ".wav", strict=strict),
        speaker=text_options.voice_part(speaker),
        style=text_options.voice_part(style),
        channel=channel,
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

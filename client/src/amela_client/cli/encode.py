"""``amela-client encode``: discrete units of every recording of a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import connection, running
from amela_client.endpoint import Trust
from amela_client.sts_stages import Encoding


def encode_command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the lines with the units go.")
    ],
    dedup: Annotated[
        bool,
        typer.Option("--dedup", help="Keep one unit of each run of equal ones; durations say its length."),
    ] = False,
    npz: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write the units of each entry as a file for numpy.load."),
    ] = None,
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
    """Turn the recordings of a manifest into discrete units.

    ```
    amela-client encode data.json -o units.jsonl --dedup
    ```

    Each line comes out as it was, with its `units`, their `durations` in frames, and the model. What
    cannot be encoded goes to units.errors.jsonl, with the reason. If the run is stopped, the same command
    goes on where it was.

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
    mirror = running.plan_files(manifest, npz, ".npz", strict=strict) if npz else None
    job = running.Job(
        Encoding(deduplicate=dedup, npz=mirror, channel=channel),
        manifest,
        share.of(output) if share else output,
        strict=strict,
        restart=restart,
        as_json=as_json,
        share=share,
    )
    running.run_and_exit(job, servers, quiet=quiet)

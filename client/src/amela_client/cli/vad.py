"""``amela-client vad``: where the speech is in every recording of a folder or a manifest."""

import filecmp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import connection, running
from amela_client.endpoint import Trust
from amela_client.errors import JournalError
from amela_client.manifest import Manifest
from amela_client.manifest_build import LeftOut, build_manifest
from amela_client.merge import check_output
from amela_client.run import journal_path
from amela_client.stages import VoiceDetection
from amela_client.vad_report import write_csv


def vad_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|MANIFEST", help="Folder with recordings at any depth, or a manifest of them."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Manifest to write, with the results in it."),
    ],
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Table to write as well.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability from which on a frame is speech. Default: 0.5."),
    ] = None,
    merge_gap: Annotated[
        float | None,
        typer.Option(
            min=0, max=3600, metavar="SECONDS", help="Bridge pauses shorter than this. Default: none."
        ),
    ] = None,
    min_speech: Annotated[
        float | None,
        typer.Option(
            min=0, max=3600, metavar="SECONDS", help="Then drop speech shorter than this. Default: none."
        ),
    ] = None,
    padding: Annotated[
        float | None,
        typer.Option(
            min=0, max=3600, metavar="SECONDS", help="Then add this to both sides. Default: nothing."
        ),
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
    """Find the speech in recordings.

    ```
    amela-client vad /corpus -o vad.json --csv vad.csv
    ```

    vad.json is a manifest for the other commands: `audio_filepath` and `duration`, with segments, split
    points, flags and statistics. What cannot be read goes to vad.errors.jsonl, with the reason. If the run is
    stopped, the same command goes on where it was.

    Exit code 0: all done; 3: some entries quarantined, or recordings of the folder left out; 2: wrong usage;
    130: Ctrl-C; 1: other errors.
    """
    stage = VoiceDetection(
        threshold=threshold, merge_gap=merge_gap, min_speech=min_speech, padding=padding, channel=channel
    )
    servers = connection.choose(
        server,
        registry,
        local=local,
        wait=wait,
        trust=Trust(certificate, token, client_certificate, client_key),
        mix_models=mix_models,
    )
    share = running.share_of(tasks, task_id)
    if share:
        output, table = share.of(output), share.of(table) if table else None
    if table is not None and table.absolute() in (output.absolute(), source.absolute()):
        raise typer.BadParameter(f"--csv {table} is {source} or {output}: name a file of its own")
    console = running.error_console(quiet=quiet)
    with _manifest_of(source, output, restart=restart) as (manifest, is_whole):
        if table is not None:
            check_output(Manifest(manifest), table, with_errors=False)
        job = running.Job(
            stage, manifest, output, strict=strict, restart=restart, as_json=as_json, share=share
        )
        summary = running.run_job(job, servers, console)
    if table is not None:
        write_csv(summary.output, table)
    if summary.quarantined or not is_whole:
        raise typer.Exit(running.SOME_QUARANTINED)


@contextmanager
def _manifest_of(source: Path, output: Path, *, restart: bool) -> Iterator[tuple[Path, bool]]:
    """Return the manifest, which for a folder is a list beside the output that lives as long as the run.

    And whether it has all the recordings of the folder.
    """
    if not source.is_dir():
        yield source, True
        return
    listing = output.with_name(f"{output.name}.recordings")
    resumes = journal_path(output).exists() and listing.exists() and not restart
    try:
        left_out = _list_recordings(source, listing, output, resumes=resumes)
        yield listing, not left_out
    finally:
        # As long as there is a journal, a run can go on with both.
        if not journal_path(output).exists():
            listing.unlink(missing_ok=True)


def _list_recordings(folder: Path, listing: Path, output: Path, *, resumes: bool) -> list[LeftOut]:
    fresh = listing.with_name(f"{listing.name}.new") if resumes else listing
    report = build_manifest(folder, fresh)
    for name, why in report.left_out:
        # Nothing but this line says so: --quiet is not meant for it.
        typer.echo(f"left out: {name}: {why}", err=True)
    if resumes:
        same = filecmp.cmp(fresh, listing, shallow=False)
        fresh.unlink()
        if not same:
            raise JournalError(
                f"the recordings in {folder} are not those that the stopped run of {output} was about. Give"
                f" the list of those to go on (amela-client vad {listing} -o {output}), or --restart to start"
                " over"
            )
    return report.left_out

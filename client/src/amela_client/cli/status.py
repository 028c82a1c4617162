"""``amela-client status``: launches, their jobs and servers, and what to do about each oddity."""

import time
from typing import Annotated

import typer
from rich.console import Console

from amela_client.cli import connection
from amela_client.cli.output import output_console, print_json, table
from amela_client.cli.running import error_console, until_signal
from amela_client.cli.servers import capacity_of, device_of, health_of, model_of, stage_of
from amela_client.cli.standings import COLUMNS, as_json, rows
from amela_client.cluster.overview import Overview, overview
from amela_client.cluster.standing import LaunchStanding
from amela_client.discovery import default_registry

_OTHERS = ("service", "address", "state", "model", "device", "at once + queue", "SLURM job")


def status_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Launches. Default: all, and all servers.")
    ] = None,
    *,
    registry: connection.Registry = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what was started, how it does, and what to do about what is odd.

    ```
    amela-client status
    ```

    --json prints an object with `registry`, `launches`, `others` (servers of no launch, each as in
    `amela-client servers --json`) and `problems` (texts). A launch has `name`, `folder`, `stage`, `launcher`,
    `host`, `count` (jobs that are wanted), `servers_per_job`, `gpu_memory_mib`, `renew`, `created`, `ready`
    (how many of the wanted are), `advice` and `jobs`. A job has `job` (its id), `state` (pending, starting,
    ready, unhealthy, draining, ended, failed, lost, unknown), `words` (why), `advice`, `hopeless` (it waits
    for ever), `succeeds` (a job, if it is the successor of one), `node`, `queued` and `starting` (seconds),
    `since` and `ends` (seconds since 1970), `restarts`, `exit_code` and `servers`. What is not known is null.

    Exit code 0, whatever the servers do; 1: there is no launch of such a name, or the registry cannot be
    used.
    """
    error_console()
    folder = (registry or default_registry()).expanduser().absolute()
    found = until_signal(overview(folder, names or ()))
    if as_json_:
        print_json(
            {
                "registry": found.registry,
                "launches": [as_json(launch) for launch in found.launches],
                "others": found.others,
                "problems": found.problems,
            }
        )
        return
    _print(found, output_console())


def _print(found: Overview, console: Console) -> None:
    now = time.time()
    for launch in found.launches:
        _print_launch(launch, console, now)
    if found.others:
        console.print("servers of no launch", markup=False)
        console.print(
            table(
                _OTHERS,
                (
                    [
                        stage_of(server),
                        server.endpoint,
                        health_of(server),
                        model_of(server),
                        device_of(server),
                        capacity_of(server),
                        server.slurm_job,
                    ]
                    for server in found.others
                ),
            )
        )
        for server in found.others:
            if server.problem:
                _advise(console, f"{server.endpoint}: {server.problem}")
    for problem in found.problems:
        _advise(console, problem)
    if not found.launches and not found.others and not found.problems:
        console.print(
            f"nothing runs in {found.registry}: start servers with 'amela-client up'", soft_wrap=True
        )


def _print_launch(standing: LaunchStanding, console: Console, now: float) -> None:
    launch = standing.launch
    console.print(
        f"{launch.name}: {standing.ready} of {launch.count} ready"
        f"{', renewed' if launch.renew else ''} ({launch.launcher})",
        markup=False,
    )
    console.print(table(COLUMNS, rows(standing.jobs, now)))
    for job in standing.jobs:
        if job.advice:
            _advise(console, f"job {job.job}: {job.advice}")
    if standing.advice:
        _advise(console, standing.advice)


def _advise(console: Console, text: str) -> None:
    console.print(f"  → {text}", markup=False, soft_wrap=True)

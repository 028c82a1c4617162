"""``amela-client down``: the end of launches."""

import asyncio
from typing import Annotated

import typer

from amela_client.cli import connection
from amela_client.cli.output import print_json
from amela_client.cli.running import error_console, until_signal
from amela_client.cluster.control import take_down
from amela_client.cluster.launch import Launch, all_launches, open_launch
from amela_client.discovery import default_registry
from amela_client.errors import LaunchError


def down_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Launches, as `status` lists them.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All launches of the registry.")] = False,
    keep_logs: Annotated[bool, typer.Option("--keep-logs", help="Leave the logs where they are.")] = False,
    kill: Annotated[
        bool, typer.Option("--kill", help="End them at once: what they work on is lost.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for the end at most."),
    ] = 300.0,
    registry: connection.Registry = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """End the servers of launches: they finish what they have, and nothing is left of them.

    Only what `up` and `scale` started is ended, and what those jobs handed in as successors.

    ```
    amela-client down asr-3f9a2c
    ```

    --json prints an object with `down`, the names of the launches.

    Exit code 1: there is no such launch, or something is left; 130: stopped by Ctrl-C. The same command goes
    on with it.
    """
    console = error_console()
    folder = (registry or default_registry()).expanduser().absolute()
    if every == bool(names):
        found = [each.name for each in all_launches(folder) if isinstance(each, Launch)]
        raise typer.BadParameter(f"name launches, or give --all. There are: {', '.join(found) or 'none'}")
    launches, problems = [], []
    for each in all_launches(folder) if every else [open_launch(folder, name) for name in names or ()]:
        if isinstance(each, Launch):
            launches.append(each)
        else:
            problems.append(each)

    async def end() -> None:
        async with asyncio.timeout(timeout):
            await take_down(launches, keep_logs=keep_logs, kill=kill)

    found = [launch.name for launch in launches]
    for name in found:
        console.print(f"{name}: {'ending it' if kill else 'told to end; it finishes what it has'}")
    try:
        until_signal(end())
    except TimeoutError:
        raise LaunchError(
            f"not all has ended in {timeout:g} s: {', '.join(found)}. Give the same command again to wait on,"
            " or with --kill to end it at once"
        ) from None
    if as_json:
        print_json({"down": found})
    console.print(f"down: {', '.join(found) or 'nothing to end'}")
    if problems:
        raise LaunchError("; ".join(map(str, problems)))

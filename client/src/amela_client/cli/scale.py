"""``amela-client scale``: more servers, or fewer."""

from typing import Annotated

import typer

from amela_client.cli import connection, running
from amela_client.cli.output import print_json
from amela_client.cli.running import error_console, until_signal
from amela_client.cli.standings import as_json
from amela_client.cli.up import NoWait, Timeout
from amela_client.cli.waiting import at_once, is_over, refuse_unready, wait_for
from amela_client.cluster.control import scale
from amela_client.cluster.launch import open_launch
from amela_client.cluster.overview import is_settled
from amela_client.discovery import default_registry


def scale_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A launch, as `status` lists them.")],
    count: Annotated[int, typer.Argument(metavar="COUNT", min=0, help="Jobs that it is to have.")],
    *,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    registry: connection.Registry = None,
    as_json_: running.Json = False,
) -> None:
    """Start more jobs of a launch, or end some: those that wait first, then the newest.

    ```
    amela-client scale asr-3f9a2c 8
    ```

    With the number that it has already, jobs that failed or were lost are replaced. --json prints one object,
    as an element of `launches` in `status --json`.

    Exit codes are those of `up`.
    """
    console = error_console()
    launch = open_launch((registry or default_registry()).expanduser().absolute(), name)
    done = until_signal(scale(launch, count))
    if done.started:
        console.print(f"{name}: handed in as {', '.join(done.started)}")
    elif done.told:
        console.print(f"{name}: told to end: {', '.join(done.told)}; they finish what they have")
    else:
        console.print(f"{name}: has {count} already")
    until = at_once if no_wait else is_over if done.told else is_settled
    standing = wait_for(done.launch, [*done.started, *done.told], console, timeout=timeout, until=until)
    if as_json_:
        print_json(as_json(standing))
    if not no_wait:
        refuse_unready(standing, done.started, console)

"""``amela-client logs``: what the servers of a launch write."""

import json
from contextlib import aclosing
from typing import Annotated

import typer

from amela_client.cli import connection
from amela_client.cli.running import error_console, until_signal
from amela_client.cluster.launch import open_launch
from amela_client.cluster.launchers import launcher_of
from amela_client.cluster.logs import LogLine, follow, jobs_with_logs, last_lines
from amela_client.discovery import default_registry


def logs_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A launch, as `status` lists them.")],
    *,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this job's. Default: of all its jobs.")
    ] = None,
    follow_: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until all jobs are over.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many last lines of each log.")] = 20,
    registry: connection.Registry = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print {job, text} for each line.")] = False,
) -> None:
    """Show the last lines of the logs of a launch.

    ```
    amela-client logs asr-3f9a2c --follow
    ```

    Exit code 1: there is no such launch or job; 130: stopped by Ctrl-C.
    """
    error_console()
    launch = open_launch((registry or default_registry()).expanduser().absolute(), name)
    several = len(jobs_with_logs(launch, job)) > 1

    def show(line: LogLine) -> None:
        if as_json:
            print(json.dumps(line._asdict()), flush=True)
        else:
            print(f"{line.job}: {line.text}" if several else line.text, flush=True)

    async def show_and_follow() -> None:
        launcher = launcher_of(launch)

        def present() -> set[str]:
            return {each.id for each in launcher.jobs([launch.job_name])}

        async with aclosing(follow(launch, job=job, lines=lines, present=present)) as coming:
            async for line in coming:
                show(line)

    if follow_:
        until_signal(show_and_follow())
        return
    for each in jobs_with_logs(launch, job):
        for text in last_lines(launch.log(each), lines):
            show(LogLine(each, text))

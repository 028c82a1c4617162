"""``amela-client up``: servers as jobs."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from amela_client.cli import connection, job_options, running
from amela_client.cli.output import print_json
from amela_client.cli.running import StoppedError, error_console, until_signal
from amela_client.cli.standings import as_json
from amela_client.cli.waiting import at_once, refuse_unready, wait_for
from amela_client.cluster.control import plan_launch, start
from amela_client.cluster.launch import Launch
from amela_client.cluster.overview import is_settled
from amela_client.cluster.plan import LaunchOptions, ServerPlan
from amela_client.cluster.script import server_script
from amela_client.cluster.site import load_site
from amela_client.cluster.standing import LaunchStanding
from amela_client.discovery import default_registry
from amela_client.progress import clock

NoWait = Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is handed in.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait at most. Jobs stay."),
]


def up_command(
    stage: Annotated[Literal["vad", "asr", "sts"], typer.Argument(help="What the servers do.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTION", help="Options of the server, after --."),
    ] = None,
    *,
    count: Annotated[int, typer.Option(min=1, help="Jobs to start, each with a server.")] = 1,
    model: job_options.Model = None,
    time: job_options.Time = None,
    gres: job_options.Gres = None,
    cpus: job_options.Cpus = None,
    memory: job_options.Memory = None,
    partition: job_options.Partition = None,
    account: job_options.Account = None,
    qos: job_options.Qos = None,
    per_gpu: job_options.PerGpu = 1,
    image: job_options.Image = None,
    audio_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--audio-root",
            metavar="DIR",
            help="Folder that recordings must lie under; may be given again. Default: the site's, or this.",
        ),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Before each job's time is up, hand in a successor.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Open the registry to this Unix group.")
    ] = None,
    launcher: Annotated[
        Literal["slurm", "local"], typer.Option(help="local: on this machine, without SLURM.")
    ] = "slurm",
    site: job_options.SiteFile = None,
    registry: connection.Registry = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script, and do nothing.")
    ] = False,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    as_json_: running.Json = False,
) -> None:
    """Start servers as jobs, and wait until they are ready.

    ```
    amela-client up asr --model canary-qwen --count 4 --time 8:00:00
    amela-client up vad --launcher local -- --workers 2
    ```

    --json prints one object, as an element of `launches` in `status --json`.

    Exit code 0: all are ready, or handed in with --no-wait; 1: some failed or wait for ever, and the others
    stay; 2: what was asked for cannot work as things are set up, and nothing was submitted; 130: stopped by
    Ctrl-C, and the jobs stay.
    """
    console = error_console()
    wanted = LaunchOptions(
        stage=stage,
        model=job_options.named_model(model),
        time=time,
        gres=gres,
        cpus=cpus,
        memory=memory,
        partition=partition,
        account=account,
        qos=qos,
        image=image.expanduser().absolute() if image else None,
        audio_roots=tuple(root.expanduser().absolute() for root in audio_root or ()),
        per_gpu=per_gpu,
        renew=renew,
        options=tuple(options or ()),
    )
    plan = plan_launch(wanted, site=load_site(site), registry=registry)
    if dry_run:
        script = server_script(plan)
        if as_json_:
            print_json({"name": plan.name, "script": script})
        else:
            print(script, end="")
        return
    launch = _start(plan, launcher, count, group)
    jobs = launch.jobs()
    console.print(f"{launch.name}: handed in as {', '.join(jobs)}")
    standing = wait_for(launch, jobs, console, timeout=timeout, until=at_once if no_wait else is_settled)
    if as_json_:
        print_json(as_json(standing))
    if not no_wait:
        refuse_unready(standing, jobs, console)
        console.print(f"{launch.name}: {len(jobs)} of {len(jobs)} ready; {_longest(standing)}")
    console.print(_what_next(launch, stage))


def _start(plan: ServerPlan, launcher: str, count: int, group: str | None) -> Launch:
    try:
        return until_signal(start(plan, launcher=launcher, count=count, group=group))
    except StoppedError as stop:
        raise StoppedError(
            stop.number, f"{stop}. If jobs were submitted, 'amela-client down {plan.name}' ends them"
        ) from None


def _longest(standing: LaunchStanding) -> str:
    queued = max((job.queued or 0.0 for job in standing.jobs), default=0.0)
    starting = max((job.starting or 0.0 for job in standing.jobs), default=0.0)
    return f"at most {clock(queued)} in the queue, and {clock(starting)} to start"


def _what_next(launch: Launch, stage: str) -> str:
    registry = launch.folder.parent.parent
    elsewhere = f" --registry {shlex.quote(str(registry))}" if registry != default_registry() else ""
    commands = [
        {
            "vad": "vad data.json -o vad.json",
            "asr": "transcribe data.json -o done.json",
            "sts": "encode data.json -o units.jsonl",
        }[stage],
        f"status {launch.name}",
        f"down {launch.name}",
    ]
    return "\n".join(f"  amela-client {command}{elsewhere}" for command in commands)

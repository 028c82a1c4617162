"""``amela-client task``: one task of a job array."""

import os
from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli.array_stage import ArrayStage, invoke
from amela_client.cli.running import SOME_QUARANTINED
from amela_client.cluster.array_run import ArrayRun
from amela_client.errors import SetupError


def task_command(
    context: typer.Context,
    stage: Annotated[ArrayStage, typer.Argument(metavar="STAGE", help="What to do: a command's name.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `manifest split` made.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Options of that command.")
    ] = None,
    *,
    task_id: Annotated[
        int, typer.Option("--task-id", envvar="SLURM_ARRAY_TASK_ID", help="Which share, from 0.")
    ],
    left: Annotated[
        bool,
        typer.Option(
            "--left",
            help="Only print how many entries are left to do, and the folder that all recordings lie in.",
        ),
    ] = False,
) -> None:
    """Do one task of a job array: take its share of a manifest through a stage.

    ```
    amela-client manifest split data.json --splits 30 -o splits
    amela-client task transcribe splits --task-id 3 -- --words
    ```

    This is what slurm/array.slurm runs; without SLURM it goes as well. The results go to FOLDER/results, and
    `amela-client manifest merge FOLDER` puts those of all tasks together. A task that was stopped goes on
    where it was, one that is done stays so. All tasks must have the same options.

    Exit codes are those of the stage's command.
    """
    run = ArrayRun.open(folder)
    if not 0 <= task_id < run.tasks:
        raise SetupError(
            f"there is no task {task_id}: {run.folder} has {run.tasks}, so give --array=0-{run.tasks - 1} or"
            " a part of that; for another number, split the manifest into another folder"
        )
    share, result = run.share(task_id), run.result(task_id)
    if not share.exists():
        raise SetupError(f"{share} is missing: give the command that split {run.manifest} again")
    typed = stage.command(context, share, result, options or [])
    model, engine = (os.environ.get(name, "") for name in ("AMELA_MODEL", "AMELA_ENGINE"))
    run.settle_on(stage, stage.options_of(typed, model=model, engine=engine))
    state = run.state(task_id)
    if left:
        print(state.left, run.audio_root)
    elif state.left:
        invoke(typed)
    else:
        print(f"task {task_id}: {state}; nothing is left to do")
        if state.quarantined:
            raise typer.Exit(SOME_QUARANTINED)

"""``amela-client submit``: a manifest through a stage as a job array."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from amela_client.cli import job_options, running
from amela_client.cli.array_stage import ArrayStage
from amela_client.cli.output import print_json
from amela_client.cluster import preflight
from amela_client.cluster.array_run import ArrayRun
from amela_client.cluster.control import plan_launch
from amela_client.cluster.plan import LaunchOptions
from amela_client.cluster.site import load_site
from amela_client.cluster.slurm import SlurmLauncher
from amela_client.cluster.slurm_output import compact_tasks
from amela_client.cluster.submission import Submission, Submitted, run_folder, run_name, submit
from amela_client.local import find_program
from amela_client.manifest import Manifest
from amela_client.merge import check_output, errors_path


def submit_command(
    context: typer.Context,
    stage: Annotated[ArrayStage, typer.Argument(metavar="STAGE", help="What to do: a command's name.")],
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON Lines, or CSV with a header.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Options of that command.")
    ] = None,
    *,
    tasks: Annotated[int, typer.Option(min=1, help="In how many tasks, each with a server of its own.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="Where the results go, as with the command itself. Default of transcribe: as there.",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Table to write as well, of results of vad.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="How many tasks may run at the same time. Default: all.")
    ] = None,
    model: job_options.Model = None,
    image: job_options.Image = None,
    per_gpu: job_options.PerGpu = 1,
    time: job_options.Time = None,
    gres: job_options.Gres = None,
    cpus: job_options.Cpus = None,
    memory: job_options.Memory = None,
    partition: job_options.Partition = None,
    account: job_options.Account = None,
    qos: job_options.Qos = None,
    site: job_options.SiteFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch scripts, and do nothing.")
    ] = False,
    as_json: running.Json = False,
) -> None:
    """Share a manifest out to the tasks of a job array, and put their results together in a job after them.

    ```
    amela-client submit transcribe data.json --tasks 30 -o done.json --model canary-qwen --time 4:00:00
    amela-client submit vad data.json --tasks 4 -o vad.json --cpus 16 -- --min-speech 0.1
    amela-client submit resynthesize data.json --tasks 8 -o voices --gres gpu:1 -- --speaker ex02
    ```

    The run lies in done.run beside done.json: the shares, what tasks have done, and their logs. The same
    command again submits what is not done and not on its way, or says that all is done.

    Exit code 0: submitted, under way, or done; 3: done, and some entries are quarantined; 2: wrong usage, or
    what was asked for cannot work as things are set up, and nothing was submitted; 1: other errors.
    """
    source = Manifest(manifest)
    merged = _merged(stage, manifest, output).absolute()
    if table is not None and stage is not ArrayStage.VAD:
        raise typer.BadParameter("--csv is of results of vad: leave it out")
    if table is not None and table.absolute() in (merged, manifest.absolute()):
        raise typer.BadParameter(f"--csv {table} is {manifest} or {merged}: name a file of its own")
    run = ArrayRun.planned(source, tasks, run_folder(merged))
    words = list(options or ())
    if stage.makes_files:
        words += ["--output", str(merged.parent)]
    typed = stage.command(context, run.share(0), run.result(0), words)
    wanted = LaunchOptions(
        stage=stage.service,
        model=job_options.named_model(model),
        time=time,
        gres=gres,
        cpus=cpus,
        memory=memory,
        partition=partition,
        account=account,
        qos=qos,
        image=image.expanduser().absolute() if image else None,
        per_gpu=per_gpu,
    )
    settings = load_site(site)
    plan = plan_launch(wanted, site=settings, registry=run.folder, name=run_name(stage, run.folder))
    # For synthesis, recordings are names only.
    needed = () if stage is ArrayStage.SYNTHESIZE else (Path(run.audio_root),)
    plan = replace(plan, audio_roots=settings.audio_roots or needed)
    client_image = os.environ.get("AMELA_CLIENT_IMAGE")
    submission = Submission(
        run=run,
        server=plan,
        stage=stage,
        options=tuple(words),
        output=merged,
        effective=stage.options_of(typed, model=plan.model, engine=plan.engine),
        table=table.absolute() if table else None,
        programs=None if client_image else Path(find_program("amela-client")).absolute().parent,
        client_image=Path(client_image) if client_image else None,
        audio_roots=settings.audio_roots,
        concurrent=concurrent,
    )
    if dry_run:
        scripts = {"array": submission.array_script(), "merge": submission.merge_script()}
        if as_json:
            print_json({"run": run.folder, **scripts})
        else:
            print(*scripts.values(), sep="\n", end="")
        return
    preflight.check(plan, "slurm")
    folder, suffix = (merged.parent, ".wav") if stage.makes_files else (typed.params.get("npz"), ".npz")
    if folder:
        running.plan_files(manifest, folder, suffix, strict=typed.params["strict"])
    check_output(source, merged)
    if table is not None:
        check_output(source, table, with_errors=False)
    submitted = submit(submission, source, SlurmLauncher())
    if as_json:
        print_json(_as_json(submission, submitted))
    else:
        print("\n".join(_describe(submission, submitted)))
    if submitted.done and errors_path(merged).exists():
        raise typer.Exit(running.SOME_QUARANTINED)


def _merged(stage: ArrayStage, manifest: Path, output: Path | None) -> Path:
    if output is None and stage is ArrayStage.TRANSCRIBE:
        return manifest.with_name(f"{manifest.stem}.transcribed.json")
    if output is None:
        raise typer.BadParameter("say where the results go: -o FILE, or -o DIR for audio")
    return output / "manifest.json" if stage.makes_files else output


def _describe(submission: Submission, submitted: Submitted) -> list[str]:
    run = submission.run
    done = sum(state.done for state in submitted.states)
    quarantined = sum(state.quarantined for state in submitted.states)
    lines = [f"{run.folder}: {done} of {run.tasks} tasks of {run.entries:,} entries are done"]
    if submitted.done:
        lines[0] += f", and put together in {submission.output}"
        if quarantined:
            lines.append(f"{errors_path(submission.output)}: {quarantined:,} entries quarantined")
        return lines
    if submitted.queued:
        jobs = ", ".join(submitted.queued_jobs)
        lines.append(f"waiting or running already: tasks {compact_tasks(submitted.queued)}, job {jobs}")
    if submitted.job:
        lines.append(f"submitted: tasks {compact_tasks(submitted.tasks)}, job {submitted.job}")
    lines.append(f"after them: job {submitted.merge} writes {submission.output}")
    lines += [
        f"  squeue -j {','.join(submitted.jobs)}",
        f"  amela-client manifest tasks {run.folder}",
        f"  tail -f {run.folder}/logs/*.log",
    ]
    return lines


def _as_json(submission: Submission, submitted: Submitted) -> dict[str, object]:
    return {
        "run": submission.run.folder,
        "output": submission.output,
        "tasks": submission.run.tasks,
        "finished": sum(state.done for state in submitted.states),
        "quarantined": sum(state.quarantined for state in submitted.states),
        "submitted": {"job": submitted.job, "tasks": compact_tasks(submitted.tasks)},
        "queued": {"jobs": submitted.queued_jobs, "tasks": compact_tasks(submitted.queued)},
        "merge": submitted.merge,
        "done": submitted.done,
    }

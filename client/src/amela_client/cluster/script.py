"""The batch script of a launch: the committed one, with everything filled in."""

import importlib.resources
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from amela_client.cluster.plan import ServerPlan, gpus_of
from amela_client.errors import SetupError

MARKER = "# --- body ---"
_SIGNAL_SECONDS = 120
# SLURM may send the signal a minute early, which is too much of a shorter allocation. There the server,
# which knows its end, drains by itself.
_SHORTEST_WITH_SIGNAL = 600


def server_script(plan: ServerPlan) -> str:
    """Write the script that runs one job of a launch.

    Raises
    ------
    SetupError
        If a value cannot be written into a script.
    """
    # SLURM hands them out itself, but there may be none.
    variables = exports(plan) | {"AMELA_GPUS": str(gpus_of(plan.gres))}
    return render("server.slurm", sbatch_options(plan), variables, plan.options, programs=plan.programs)


def sbatch_options(plan: ServerPlan) -> list[list[str]]:
    """Return the options of `sbatch`, those of one line together."""
    limit = plan.time_seconds
    # None is no option of this script, an empty value neither.
    single = {
        "--job-name": f"amela-{plan.name}",
        "--output": _pattern(plan.folder / "logs", "%j.log"),
        "--open-mode": "append",
        "--signal": f"B:TERM@{_SIGNAL_SECONDS}" if limit is None or limit >= _SHORTEST_WITH_SIGNAL else "",
        "--time": plan.time,
        "--gres": plan.gres,
        "--cpus-per-task": str(plan.cpus or ""),
        "--mem": plan.memory,
        "--partition": plan.partition,
        "--account": plan.account,
        "--qos": plan.qos,
    }
    lines = [[f"{name}={value}"] for name, value in single.items() if value]
    return [*lines, ["--requeue"], *([list(plan.sbatch)] if plan.sbatch else [])]


def exports(plan: ServerPlan) -> dict[str, str | None]:
    """Return the variables of the job; None: not set, whatever the submitting shell has."""
    return {
        **dict(plan.variables),
        # What it says is in the other variables.
        "AMELA_SITE": "",
        "AMELA_STAGE": plan.stage,
        "AMELA_IMAGE": str(plan.image or ""),
        "AMELA_REGISTRY": str(plan.registry),
        "AMELA_AUDIO_ROOT": ":".join(map(str, plan.audio_roots)),
        "AMELA_MODEL": plan.model or None,
        "AMELA_ENGINE": plan.engine or None,
        "AMELA_BINDS": ",".join(plan.binds),
        "AMELA_MODULES": " ".join(plan.modules),
        "AMELA_PER_GPU": str(plan.per_gpu),
        "AMELA_RENEW": str(int(plan.renew)),
        "AMELA_LAUNCH_FOLDER": str(plan.folder),
        "AMELA_DRAIN_SECONDS": str(plan.drain_seconds) if plan.drain_seconds else None,
    }


def render(
    template: str,
    options: Sequence[Sequence[str]],
    variables: Mapping[str, str | None],
    arguments: Sequence[str] = (),
    *,
    programs: Path | None = None,
) -> str:
    """Write a batch script with the body of one that comes with this package.

    Parameters
    ----------
    template
        Its name, like ``server.slurm``.
    options
        Options of `sbatch`, those of one line together.
    variables
        What the script exports; None: what it unsets.
    arguments
        What the body gets before the arguments of the script.
    programs
        Folder to look for programs in first.

    Raises
    ------
    SetupError
        If a value cannot be written into a script.
    """
    lines = ["#!/bin/bash", f"# Made by amela-client from its {template}."]
    lines += ["#SBATCH " + " ".join(map(_quote_for_sbatch, line)) for line in options]
    lines.append("")
    for name, value in variables.items():
        lines.append(f"unset {name}" if value is None else f"export {name}={_quote(value)}")
    if programs is not None:
        lines.append(f'export PATH={_quote(str(programs))}:"$PATH"')
    if arguments:
        lines.append(f'set -- {" ".join(map(_quote, arguments))} "$@"')
    return "\n".join(lines) + "\n\n" + body_of(template)


def body_of(template: str) -> str:
    """Return what a script of this package does, without its head."""
    text = (importlib.resources.files("amela_client") / "slurm" / template).read_text("utf-8")
    _, _, body = text.partition(f"\n{MARKER}\n")
    assert body, f"{template} has no line {MARKER}"
    return body


def _pattern(folder: Path, name: str) -> str:
    # In a file name, SLURM replaces what follows a percent sign, unless a backslash forbids it all.
    for character in "%\\":
        if character in str(folder):
            raise SetupError(
                f"the folder {folder} of the logs has {character!r} in its path, which means something to"
                " SLURM: put the registry or the run in a folder without it"
            )
    return f"{folder}/{name}"


def _quote(value: str) -> str:
    return shlex.quote(_checked(value))


def _quote_for_sbatch(option: str) -> str:
    # `sbatch` reads its lines with rules of its own: a backslash escapes inside all quotes.
    if not set(_checked(option)) & set(" \t\"'\\#"):
        return option
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(value: str) -> str:
    for character, name in (("\n", "a line break"), ("\r", "a carriage return"), ("\0", "a NUL")):
        if character in value:
            raise SetupError(f"{value!r} has {name} in it, which cannot be written into a batch script")
    return value

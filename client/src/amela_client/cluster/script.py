"""The batch script of a launch: the committed one, with everything filled in."""

import importlib.resources
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from amela_client.cluster.plan import ServerPlan, gpus_of
from amela_client.errors import SetupError

MARKER = "# --- body ---"
_UNSET = "unset "
# What `sbatch` finds in its environment comes before the lines of a script. Most variables have the names of
# their options.
_VARIABLES = {
    "time": ("TIMELIMIT",),
    "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"),
    "gres": ("GRES", "GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK"),
    "requeue": ("REQUEUE", "NO_REQUEUE"),
}
_LETTERS = {"A": "account", "C": "constraint", "G": "gpus", "p": "partition", "q": "qos", "t": "time"}
# Jobs of another cluster, and a whole array of them, would not be found again; the end is not waited for.
_NEVER = ("ARRAY_INX", "CLUSTERS", "WAIT")
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
    """Return the options of `sbatch`, those of one line together. The last of several values holds."""
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
    return [*([list(plan.sbatch)] if plan.sbatch else []), *lines, ["--requeue"]]


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
    # Here, for the successor that a job hands in; whoever hands in the job reads this line.
    lines += ["", _UNSET + " ".join(sorted(_variables_of(word for line in options for word in line)))]
    for name, value in variables.items():
        lines.append(f"unset {name}" if value is None else f"export {name}={_quote(value)}")
    if programs is not None:
        lines.append(f'export PATH={_quote(str(programs))}:"$PATH"')
    if arguments:
        lines.append(f'set -- {" ".join(map(_quote, arguments))} "$@"')
    return "\n".join(lines) + "\n\n" + body_of(template)


def variables_against(script: Path) -> frozenset[str]:
    """Return the variables that would change what a script of `render` says, if `sbatch` found them."""
    with suppress(OSError):
        for line in script.read_text("utf-8", "replace").splitlines():
            if line.startswith(f"{_UNSET}SBATCH_"):
                return frozenset(line.removeprefix(_UNSET).split())
    return frozenset()


def body_of(template: str) -> str:
    """Return what a script of this package does, without its head."""
    text = (importlib.resources.files("amela_client") / "slurm" / template).read_text("utf-8")
    _, _, body = text.partition(f"\n{MARKER}\n")
    assert body, f"{template} has no line {MARKER}"
    return body


def _variables_of(words: Iterable[str]) -> set[str]:
    names = set(_NEVER)
    for word in words:
        option = re.match(r"--(?P<name>[a-z-]+)|-(?P<letter>\w)", word, re.ASCII)
        name = option and (option["name"] or _LETTERS.get(option["letter"]))
        if name:
            names.update(_VARIABLES.get(name, (name.replace("-", "_").upper(),)))
    return {f"SBATCH_{name}" for name in names}


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

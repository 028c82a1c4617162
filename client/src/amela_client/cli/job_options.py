"""Options that say what jobs ask SLURM for, and what their servers run as."""

from pathlib import Path
from typing import Annotated

import typer

_JOB = "What each job asks for"
_SERVER = "What each server runs as"

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="A model of the catalogue, a path, or a name on a hub, with a slash. Default: the server's.",
        rich_help_panel=_SERVER,
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(
        metavar="SIF",
        help="Image to run. Default: STAGE.sif in the site's AMELA_IMAGES, or the installed program.",
        rich_help_panel=_SERVER,
    ),
]
PerGpu = Annotated[
    int,
    typer.Option(
        "--per-gpu", min=1, help="Servers that share each GPU and its memory.", rich_help_panel=_SERVER
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        metavar="LIMIT", help="Time limit, as sbatch takes it: 8:00:00, 2-00.", rich_help_panel=_JOB
    ),
]
Gres = Annotated[
    str | None,
    typer.Option(
        metavar="GRES",
        help="Resources: gpu:1, or gpu:4 for a server on each of four GPUs, '' for none.",
        rich_help_panel=_JOB,
    ),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs.", rich_help_panel=_JOB)]
Memory = Annotated[
    str | None, typer.Option("--mem", metavar="SIZE", help="Memory, like 32G.", rich_help_panel=_JOB)
]
Partition = Annotated[str | None, typer.Option(help="Partition.", rich_help_panel=_JOB)]
Account = Annotated[str | None, typer.Option(help="Account.", rich_help_panel=_JOB)]
Qos = Annotated[str | None, typer.Option(help="Quality of service.", rich_help_panel=_JOB)]
SiteFile = Annotated[
    Path | None,
    typer.Option("--site", metavar="FILE", help="Site file. Default: AMELA_SITE, or ~/.amela/site.env."),
]


def named_model(given: str | None) -> str | None:
    """Read a model: a path as it is typed means something in this folder only."""
    return str(Path(given).expanduser().absolute()) if given and given.startswith((".", "~", "/")) else given

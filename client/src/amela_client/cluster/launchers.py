"""Who runs the jobs of a launch."""

import socket
from pathlib import Path

from amela_client.cluster.jobs import Launcher
from amela_client.cluster.launch import Launch
from amela_client.cluster.local_jobs import LocalLauncher
from amela_client.cluster.slurm import SlurmLauncher
from amela_client.errors import LaunchError, SetupError

LAUNCHERS = ("slurm", "local")


_PATIENCE_SECONDS = 60.0


def launcher_named(name: str, registry: Path, *, patience: float = _PATIENCE_SECONDS) -> Launcher:
    """Make a launcher by its name.

    Parameters
    ----------
    patience
        Seconds for which a SLURM that does not answer is asked again.

    Raises
    ------
    SetupError
        If there is none of this name.
    """
    if name == "slurm":
        return SlurmLauncher(patience=patience)
    if name == "local":
        return LocalLauncher(registry / "launches")
    raise SetupError(f"there is no launcher {name!r}: name one of {', '.join(LAUNCHERS)}")


def launcher_of(launch: Launch, *, patience: float = _PATIENCE_SECONDS) -> Launcher:
    """Make the launcher that runs the jobs of a launch; `patience` as in `launcher_named`.

    Raises
    ------
    LaunchError
        If they run on another machine, which only that machine can do anything about.
    """
    if launch.launcher == "local" and launch.host != socket.gethostname():
        raise LaunchError(f"{launch.name} runs on {launch.host}, without SLURM: run this command there")
    return launcher_named(launch.launcher, launch.folder.parent.parent, patience=patience)

"""Everything that can be seen to be wrong before anything is submitted."""

import errno
import grp
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from amela_client.cluster.plan import ServerPlan
from amela_client.cluster.site import refuse_if_open
from amela_client.errors import ClientError, SetupError
from amela_client.local import find_program

# Logs of a day, and the registrations.
_FREE_MIB = 64
_PROBE_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

log = logging.getLogger(__name__)


def check(plan: ServerPlan, launcher: str) -> None:
    """Look whether a launch can work as far as this machine can tell. The registry must be there.

    Raises
    ------
    SetupError
        If it cannot; the message names everything that is wrong, and how to mend it.
    """
    faults = [*_launcher_faults(launcher, renew=plan.renew), *_faults(plan, launcher)]
    if faults:
        raise SetupError("\n".join(faults))


def find_programs(stage: str) -> Path | None:
    """Return the folder of a stage's server program on this machine; None if it is not installed."""
    try:
        return Path(find_program(f"amela-{stage}")).absolute().parent
    except ClientError:
        return None


def prepare_registry(folder: Path, group: str | None = None) -> None:
    """Make the registry if it is not there, for its owner alone, and see whether it can be used.

    Parameters
    ----------
    group
        Unix group that may read it, and so call the servers. None: as it is.

    Raises
    ------
    SetupError
        If it cannot be made or written, if others can write to it, or if there is no such group.
    """
    gid = _group_id(group) if group is not None else None
    try:
        refuse_if_open(folder)
        _make_folder(folder, 0o700)
        status = folder.stat()
        if status.st_uid not in (os.geteuid(), 0):
            raise SetupError(f"the registry {folder} belongs to another user: name one of your own")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SetupError(f"the registry {folder} can be written by others; run: chmod go-w {folder}")
        _probe(folder)
    except OSError as error:
        raise SetupError(
            f"the registry {folder} cannot be used: {error.strerror}; name a folder that you can write to"
            " with --registry"
        ) from error
    if gid is not None:
        assert group is not None
        _open_to(folder, group, gid)


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder if it is not there, and those above it, which nobody else can write to either."""
    try:
        folder.mkdir(mode, exist_ok=True)
    except FileNotFoundError:
        # Who can write there, whatever the umask allows, could put another folder in this one's place.
        _make_folder(folder.parent, 0o755)
        folder.mkdir(mode, exist_ok=True)


def _launcher_faults(launcher: str, *, renew: bool) -> Iterator[str]:
    if launcher == "slurm" and shutil.which("sbatch") is None:
        yield (
            "sbatch is not on PATH: run this on a node that can submit jobs, or start the servers on this"
            " machine with --launcher local"
        )
    if launcher == "local" and renew:
        yield "--renew needs an allocation that ends: leave it out with --launcher local"


def _faults(plan: ServerPlan, launcher: str) -> Iterator[str]:
    # A module may bring the program on the nodes.
    if plan.image is None and plan.programs is None and not plan.modules:
        yield (
            f"amela-{plan.stage} is not installed here, and there is no image: name one with --image, or"
            " their folder with AMELA_IMAGES in the site file"
        )
    if plan.image is not None and not _readable(plan.image):
        yield (
            f"the image {plan.image} is not there or cannot be read: build it with"
            f" 'make image-{plan.stage}', or name another with --image"
        )
    if plan.image is not None and launcher == "local" and not plan.modules and not _has_apptainer():
        yield "neither apptainer nor singularity is on PATH, to run the image with"
    if plan.model.startswith("/") and not _readable(Path(plan.model)):
        yield (
            f"the model {plan.model} is not there or cannot be read: fetch it with"
            f" 'amela-{plan.stage} stage', or mend its path"
        )
    for root in plan.audio_roots:
        if not _is_folder(root):
            yield f"the audio folder {root} is not a folder that this machine can see: mend AMELA_AUDIO_ROOT"
    for bind in plan.binds:
        source = bind.partition(":")[0]
        if not os.access(source, os.F_OK, effective_ids=True):
            yield f"{source}, which is to be bound into containers, is not there: mend AMELA_BINDS"


def _has_apptainer() -> bool:
    return any(shutil.which(name) for name in ("apptainer", "singularity"))


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if _is_folder(path) else os.R_OK, effective_ids=True)


def _is_folder(path: Path) -> bool:
    # Path's own raises for what lies in a folder that is closed to this user.
    return os.path.isdir(path)  # noqa: PTH112


def _probe(folder: Path) -> None:
    """See whether there is room: a quota shows itself only when something is written."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize >> 20
    full = SetupError(
        f"the registry {folder} has {free} MiB free, and logs need {_FREE_MIB}: make room, or name another"
        " with --registry"
    )
    if free < _FREE_MIB:
        raise full
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise full from error
        raise


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise SetupError(f"there is no Unix group {name!r} here; yours are listed by: id -Gn") from error


def _open_to(folder: Path, group: str, gid: int) -> None:
    try:
        os.chown(folder, -1, gid)
        # New files in it belong to the group too.
        folder.chmod(0o2750)
        for path in (folder / "token", *folder.glob("*.json")):
            if path.exists():
                os.chown(path, -1, gid)
                path.chmod(0o640)
    except OSError as error:
        raise SetupError(
            f"the registry {folder} cannot be given to the group {group}: {error.strerror}; it must be yours,"
            " and you must be in the group"
        ) from error
    for parent in folder.parents:
        status = parent.stat()
        if not (status.st_mode & stat.S_IXOTH or (status.st_gid == gid and status.st_mode & stat.S_IXGRP)):
            log.warning(
                "the group %s cannot reach the registry: %s is closed to it (run: chmod o+x %s, or name a"
                " registry elsewhere)",
                group,
                parent,
                parent,
            )

"""What a launch's servers run as: the options, the catalogue and the site put together."""

import re
from dataclasses import dataclass
from pathlib import Path

from amela_client.cluster.catalogue import STAGES, Catalogue, ModelEntry, find_model
from amela_client.cluster.site import Site
from amela_client.cluster.time_limit import parse_time_limit
from amela_client.errors import SetupError

# Servers drain within this by themselves; of a short allocation they take no more than a sixth.
_DRAIN_SECONDS = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}", re.ASCII)
_GRES_COUNT = re.compile(r"gpu(?::[^:,()]+)*?(?::(?P<count>\d+))?(?:\([^)]*\))?", re.ASCII)
# A launch finds its jobs and their logs by these, on this cluster. `sbatch` takes shortened names, and a
# letter after others that have no value.
_OURS = ("--job-name", "--output", "--array", "--clusters")
_OUR_LETTERS = re.compile(r"-[HIOQsvW]*[JoaM]", re.ASCII)


@dataclass(frozen=True)
class LaunchOptions:
    """What a user asks for. None and empty: as the catalogue or the site has it."""

    stage: str
    """vad, asr or sts."""
    model: str | None = None
    """A name in the catalogue, an absolute path, or a name on a hub."""
    time: str | None = None
    """Time limit of each job, as `sbatch` takes it."""
    gres: str | None = None
    """Generic resources of each job, like ``gpu:1``; empty for none."""
    cpus: int | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    image: Path | None = None
    audio_roots: tuple[Path, ...] = ()
    per_gpu: int = 1
    """Servers that share a GPU."""
    renew: bool = False
    """Hand in a successor for each server before its time is up."""
    options: tuple[str, ...] = ()
    """Further options of the server."""


@dataclass(frozen=True)
class ServerPlan:
    """Everything that a launch's script says. Paths are absolute; what is empty is left to others."""

    name: str
    """The launch's."""
    stage: str
    registry: Path
    audio_roots: tuple[Path, ...]
    image: Path | None = None
    programs: Path | None = None
    """Folder of the server's program, where no image is used."""
    model: str = ""
    engine: str = ""
    gpu_memory_mib: int = 0
    """What the catalogue says that one server needs."""
    options: tuple[str, ...] = ()
    per_gpu: int = 1
    renew: bool = False
    binds: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """What else the jobs find in their environment."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    gres: str = ""
    cpus: int = 0
    memory: str = ""
    sbatch: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The launch's own folder in the registry."""
        return self.registry / "launches" / self.name

    @property
    def time_seconds(self) -> int | None:
        """The time limit; None if there is none or if SLURM's default holds."""
        return parse_time_limit(self.time) if self.time else None

    @property
    def drain_seconds(self) -> int | None:
        """How long servers may drain before their time is up; None: the server's default."""
        return min(_DRAIN_SECONDS, self.time_seconds // 6) if self.time_seconds else None


def make_plan(
    options: LaunchOptions, site: Site, catalogue: Catalogue, *, name: str, registry: Path, here: Path
) -> ServerPlan:
    """Put together what the servers of one launch run as.

    Parameters
    ----------
    name
        The launch's.
    here
        The folder of recordings if neither the options nor the site name one.

    Raises
    ------
    SetupError
        If an option has a value that it cannot have.
    """
    if options.stage not in STAGES:
        raise SetupError(f"there is no stage {options.stage!r}: name one of {', '.join(STAGES)}")
    if not _NAME.fullmatch(name):
        raise SetupError(f"{name!r} cannot be a launch's name: use lower-case letters, digits, '-' and '_'")
    if options.per_gpu < 1:
        raise SetupError(f"{options.per_gpu} servers on a GPU: give 1 or more")
    entry = _entry(options, site, catalogue)
    time = entry.time if options.time is None else options.time
    if time:
        _check_time(time)
    for option in site.sbatch:
        if _is_ours(option):
            raise SetupError(f"{site.path}: AMELA_SBATCH cannot set {option}: a launch finds its jobs by it")
    roots = options.audio_roots or site.audio_roots or (here,)
    for root in roots:
        if ":" in str(root):
            raise SetupError(f"the audio folder {root} has a colon in its name, which separates folders")
    image = options.image or (site.images / f"{options.stage}.sif" if site.images else None)
    return ServerPlan(
        name=name,
        stage=options.stage,
        registry=registry,
        audio_roots=roots,
        image=image,
        model=entry.model,
        engine=entry.engine,
        gpu_memory_mib=entry.gpu_memory_mib,
        options=entry.options + options.options,
        per_gpu=options.per_gpu,
        renew=options.renew,
        binds=site.binds + entry.binds,
        modules=site.modules,
        variables=tuple(site.job_variables.items()),
        partition=_first(options.partition, site.partition),
        account=_first(options.account, site.account),
        qos=_first(options.qos, site.qos),
        time=time,
        gres=_first(options.gres, f"gpu:{entry.gpus}" if entry.gpus else ""),
        cpus=entry.cpus if options.cpus is None else options.cpus,
        memory=_first(options.memory, entry.memory),
        sbatch=site.sbatch,
    )


def gpus_of(gres: str) -> int:
    """Count the GPUs in generic resources such as ``gpu:2``, ``gpu:a100:1(S:0-1)`` or ``gpu,license:3``."""
    total = 0
    for item in re.split(r",(?![^(]*\))", gres):
        if match := _GRES_COUNT.fullmatch(item):
            total += int(match["count"] or 1)
    return total


def _is_ours(option: str) -> bool:
    name = option.partition("=")[0]
    is_long = len(name) > len("--") and any(ours.startswith(name) for ours in _OURS)
    return is_long or _OUR_LETTERS.match(option) is not None


def _entry(options: LaunchOptions, site: Site, catalogue: Catalogue) -> ModelEntry:
    if not options.model:
        return ModelEntry("", options.stage, "")
    if options.stage == "vad":
        raise SetupError(f"vad has one engine and no models: leave --model {options.model} out")
    return find_model(catalogue, options.model, options.stage, site.variables)


def _check_time(time: str) -> None:
    try:
        parse_time_limit(time)
    except ValueError as error:
        raise SetupError(f"--time {error}") from error


def _first(asked: str | None, otherwise: str) -> str:
    return otherwise if asked is None else asked

"""Where a model is: a file, a folder, or a name on a hub, fetched there or found in the cache."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from amela_common.errors import ConfigError

from amela_asr.engines.salm_folder import is_salm_folder

# What of a hub's repository is the model: not its examples, and not the same weights in other forms.
_WANTED = ("*.nemo", "*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "llm_backbone/*")
# How long a hub may take to answer at all.
_PATIENCE_SECONDS = 10.0


class Family(Enum):
    """How a checkpoint is loaded; the values are engines' names."""

    NEMO = "nemo"
    SALM = "salm"


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes
    ----------
    name
        As its users call it.
    path
        A ``.nemo`` file or a SALM's folder.
    """

    name: str
    family: Family
    path: Path


def find(model: str, *, offline: bool) -> Checkpoint:
    """Find a model by what ``--model`` says; a name on Hugging Face is fetched unless `offline`.

    Raises
    ------
    ConfigError
        If there is no such model, or it is neither a ``.nemo`` file nor a SALM.
    """
    if not is_local(model):
        return at(fetch(model, _WANTED, offline=offline), model)
    path = Path(model).expanduser()
    if not path.exists():
        raise ConfigError(f"--model {model}: there is no such file or folder")
    return at(path, model)


def is_local(model: str) -> bool:
    """Whether a model is meant to be on disk, where it may be missing all the same."""
    return (
        Path(model).expanduser().exists()
        or model.endswith(".nemo")
        or model.startswith(("/", "./", "../", "~"))
    )


def at(path: Path, name: str) -> Checkpoint:
    """Look at what lies at a path; raises as `find` does."""
    path = path.absolute()
    if path.is_file():
        if path.suffix != ".nemo":
            raise ConfigError(f"--model {name}: give a .nemo file or a folder")
        return Checkpoint(_short(path, name), Family.NEMO, path)
    if is_salm_folder(path):
        return Checkpoint(_short(path, name), Family.SALM, path)
    files = sorted(path.glob("*.nemo"))
    if len(files) != 1:
        found = f"there are {len(files)}" if files else "there is none"
        raise ConfigError(
            f"--model {name}: a folder holds one .nemo file, and here {found}; or a SALM with its"
            " config.json, which has `perception` and `pretrained_llm`"
        )
    return Checkpoint(_short(files[0], name), Family.NEMO, files[0])


def _short(path: Path, name: str) -> str:
    """Call a file or folder by its own name, and a hub's model by the hub's."""
    return path.name if Path(name).expanduser().exists() else name


def fetch(name: str, wanted: Iterable[str], *, offline: bool) -> Path:
    """Get files of a repository on Hugging Face, by patterns, into the cache; from there if `offline`.

    Raises
    ------
    ConfigError
        If they cannot be had.
    """
    from httpx2 import HTTPError  # noqa: PLC0415 - comes with NeMo, as the next ones do
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        beyond = "there is no looking further offline" if offline else _trouble_with_hub(name)
        patterns = list(wanted)
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=beyond is not None))
    except HFValidationError as error:
        raise ConfigError(f"--model {name}: neither a file, a folder, nor a name like OWNER/MODEL") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"--model {name}: the hub has no such model, or shows it only to those who log in (HF_TOKEN)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"--model {name}: it is not in the cache of this node, and {beyond or 'the hub is gone'}; on a"
            f" node with internet, run `amela-asr stage {name} --to DIR`, then start with --model DIR"
        ) from error
    except HTTPError as error:
        raise ConfigError(f"--model {name}: the download broke off ({error}); try again") from error


def _trouble_with_hub(name: str) -> str | None:
    """Say what is wrong with the hub, if anything is, after asking it for a model.

    A download asks first as well, but waits without end where a firewall swallows what it asks.
    """
    from httpx2 import HTTPError  # noqa: PLC0415
    from huggingface_hub import HfApi, constants  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        HfApi().model_info(name, timeout=_PATIENCE_SECONDS)
    except RepositoryNotFoundError:
        return None
    except HfHubHTTPError as error:
        return f"the hub at {constants.ENDPOINT} answers {error.response.status_code}"
    except (HTTPError, OfflineModeIsEnabled):
        return f"the hub at {constants.ENDPOINT} cannot be reached (look at HTTPS_PROXY and HF_ENDPOINT)"
    return None

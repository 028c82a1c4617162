"""``amela-asr stage``: everything that a compute node without internet needs of a model, in one folder."""

import argparse
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from amela_common.errors import ConfigError

from amela_asr.engines.checkpoint import Family, fetch, find
from amela_asr.engines.salm_folder import (
    CONFIG,
    LLM_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    check_salm_folder,
    llm_name,
    weight_files,
)


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 2 if the model cannot be staged."""
    parser = argparse.ArgumentParser(
        prog="amela-asr stage",
        description="Fetch a model with all that it needs, and check it. Run this on a node with internet.",
    )
    parser.add_argument("model", help="a name on Hugging Face, a .nemo file, or a SALM's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to make")
    arguments = parser.parse_args(argv)
    try:
        stage(arguments.model, arguments.to.expanduser())
    except ConfigError as error:
        print(f"amela-asr: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in arguments.to.rglob("*") if path.is_file())
    print(f"{arguments.to}: {size / 1e6:.1f} MB, complete; start it with `amela-asr --model {arguments.to}`")
    return 0


def stage(model: str, folder: Path) -> None:
    """Put a model and all that loading it needs into a new folder.

    Raises
    ------
    ConfigError
        If the model cannot be found or is incomplete, or the folder cannot be made.
    """
    if folder.exists():
        raise ConfigError(f"--to {folder}: it exists already; name a new folder, or remove it")
    checkpoint = find(model, offline=False)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        if checkpoint.family is Family.NEMO:
            _check_archive(checkpoint.path)
            shutil.copy(checkpoint.path, partial)
        else:
            _copy_salm(checkpoint.path, partial)
            check_salm_folder(partial)
        partial.rename(folder)
    except OSError as error:
        raise ConfigError(f"--to {folder}: {error.strerror}: {error.filename}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_archive(path: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            names = [Path(name).name for name in archive.getnames()]
    except (tarfile.TarError, EOFError) as error:
        raise ConfigError(f"--model {path}: it is no .nemo archive ({error}); fetch it again") from error
    for part in ("model_config.yaml", "model_weights.ckpt"):
        if part not in names:
            raise ConfigError(f"--model {path}: there is no {part} in it; fetch it again")


def _copy_salm(source: Path, target: Path) -> None:
    for path in weight_files(source):
        _copy(path, target / path.relative_to(source))
    if not (source / TOKENIZER_CONFIG).exists():
        llm = fetch(llm_name(source), TOKENIZER_FILES, offline=False)
        for name in TOKENIZER_FILES:
            if (llm / name).exists():
                _copy(llm / name, target / name)
    if not (source / LLM_CONFIG).exists():
        llm = fetch(llm_name(source), [CONFIG], offline=False)
        _copy(llm / CONFIG, target / LLM_CONFIG)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # A hub's cache holds links to contents that other models share.
    shutil.copyfile(source, target)

"""What `amela-sts` does besides serving: look at the environment and at the models, and fetch them."""

import argparse
import platform
from importlib import metadata
from pathlib import Path

from amela_sts import compat
from amela_sts.checkpoints.catalogue import missing_files, published_model, published_models
from amela_sts.checkpoints.model_files import CHECKPOINT_ROOT
from amela_sts.checkpoints.staging import stage
from amela_sts.compat.versions import REQUIREMENTS

COMMANDS = ("doctor", "models", "stage")


def run_command(argv: list[str]) -> int:
    """Run one of `COMMANDS`; the exit code is 0 if all is well, 1 if something is missing or wrong.

    Raises
    ------
    ConfigError
        If a model is unknown or cannot be fetched.
    """
    parser = argparse.ArgumentParser(prog="amela-sts")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "doctor", help="check what legacy checkpoints need, and list known errors with their cures"
    )
    models = commands.add_parser("models", help="list the published models, their files and what is missing")
    models.add_argument("--checkpoint-root", type=Path, default=CHECKPOINT_ROOT, help="their folder")
    staging = commands.add_parser("stage", help="fetch a published model's files and check them")
    staging.add_argument("model", help="a model's name, as `amela-sts models` lists it")
    staging.add_argument("--to", type=Path, required=True, help="folder to put them in")
    arguments = parser.parse_args(argv)
    if arguments.command == "doctor":
        return _doctor()
    if arguments.command == "models":
        return _models(arguments.checkpoint_root.expanduser())
    for file in stage(published_model(arguments.model), arguments.to):
        print(file, flush=True)
    return 0


def _doctor() -> int:
    print(f"python {platform.python_version()}")
    for name in ("torch", "numpy", "fairseq", "omegaconf", "hydra-core", "textless", "torchaudio"):
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} not installed")
    faults = compat.faults()
    if not faults:
        try:
            compat.import_legacy()
        # Anything may come of libraries that are not made for each other; that is what a doctor is for.
        except Exception as error:
            faults.append(f"fairseq cannot be imported: {type(error).__name__}: {error}")
    for what in faults:
        print(f"WRONG: {what}")
    print("\nerror | cause | fix")
    for row in known_errors():
        print(" | ".join(row))
    print("\nWRONG" if faults else "\nok: legacy checkpoints can be loaded")
    return 1 if faults else 0


def known_errors() -> list[tuple[str, str, str]]:
    """List the errors that legacy checkpoints are known for: as it reads, why, and what mends it."""
    return [
        *(
            (each.error, each.cause, f"amela_sts.compat.{each.name} is in force during {each.during}")
            for each in compat.ACCOMMODATIONS
        ),
        *((each.error, f"{each.distribution} is not {each.series}x", each.cure) for each in REQUIREMENTS),
        (
            "size mismatch for encoder.pos_conv",
            "the checkpoint writes that layer in another form than this fairseq",
            "loaded exactly where the form is known; else --pos-conv reinit, which changes the units",
        ),
    ]


def _models(root: Path) -> int:
    complete = True
    for model in published_models().values():
        missing = missing_files(model, root)
        complete = complete and not missing
        kind = "units and audio" if model.vocoder else "units only"
        print(f"{model.name}  (layer {model.layer}, {kind})")
        for part, file in model.files.items():
            state = "missing" if file in missing else "there"
            print(f"  {part:<14} {file.file}  {file.sha256}  {state}")
    print(
        f"under {root}" + ("" if complete else "; `amela-sts stage MODEL --to DIR` fetches what is missing")
    )
    return 0

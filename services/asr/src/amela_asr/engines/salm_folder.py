"""What a SALM needs to load without a network, and where in its folder that lies."""

import json
from pathlib import Path
from typing import Any

from amela_common.errors import ConfigError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
LLM_CONFIG = "llm_backbone/config.json"
# A tokenizer's vocabulary, in the forms that transformers reads.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    *VOCABULARIES,
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def is_salm_folder(folder: Path) -> bool:
    """Whether a folder holds a SALM, complete or not."""
    try:
        return _is_salm(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError):
        return False


def _is_salm(config: Any) -> bool:
    return isinstance(config, dict) and "perception" in config and "pretrained_llm" in config


def llm_name(folder: Path) -> str:
    """Name of the language model that a SALM is built on, as its configuration has it."""
    return str(json.loads((folder / CONFIG).read_text())["pretrained_llm"])


def missing_parts(folder: Path) -> list[str]:
    """List what a SALM's folder lacks, in words; empty if it is complete."""
    parts = {
        "the weights (model.safetensors)": any(folder.glob("model*.safetensors")),
        f"the tokenizer's {TOKENIZER_CONFIG}": (folder / TOKENIZER_CONFIG).is_file(),
        f"the tokenizer's vocabulary ({' or '.join(VOCABULARIES)})": any(
            (folder / name).is_file() for name in VOCABULARIES
        ),
        f"the language model's configuration ({LLM_CONFIG})": (folder / LLM_CONFIG).is_file(),
    }
    return [part for part, there in parts.items() if not there]


def check_salm_folder(folder: Path) -> None:
    """Look for everything that loading needs.

    Raises
    ------
    ConfigError
        With all that is missing, and how to get it.
    """
    missing = missing_parts(folder)
    if missing:
        raise ConfigError(
            f"--model {folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, so that"
            " it cannot load without a network: on a node with internet, run"
            f" `amela-asr stage {folder} --to DIR`, or copy them from {llm_name(folder)}"
        )


def weight_files(folder: Path) -> list[Path]:
    """List the files that results depend on, in a fixed order."""
    wanted = ("*.safetensors", CONFIG, LLM_CONFIG, *TOKENIZER_FILES)
    return sorted({path for pattern in wanted for path in folder.glob(pattern)})

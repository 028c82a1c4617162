"""Load HuBERT from a checkpoint of fairseq: exactly, strictly, or not at all."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from amela_common.errors import ConfigError
from torch import nn

from amela_sts import compat
from amela_sts.checkpoints.integrity import checked
from amela_sts.checkpoints.tensors import read_tensors
from amela_sts.encoder import layers, pos_conv

log = logging.getLogger(__name__)

PosConv = Literal["exact", "reinit"]


class LoadedHubert(NamedTuple):
    """A model as it was saved, in evaluation mode on the CPU, and what loading found out.

    Attributes
    ----------
    normalize
        Whether it wants each recording at mean 0 and variance 1.
    warnings
        What users of its features must know.
    sha256
        Digest of the checkpoint.
    """

    model: Any
    convolutions: layers.Convolutions
    sample_rate: int
    normalize: bool
    dim: int
    depth: int
    warnings: tuple[str, ...]
    sha256: str


def load_hubert(path: Path, *, trust: bool = False, pos_conv_policy: PosConv = "exact") -> LoadedHubert:
    """Load a checkpoint.

    Parameters
    ----------
    trust
        Whether the operator vouches for a checkpoint that was not published.
    pos_conv_policy
        What to do with a positional convolution that nothing can recover: ``exact`` refuses it, ``reinit``
        draws another from a fixed seed, the same on every server.

    Raises
    ------
    ConfigError
        If the checkpoint is damaged, hostile, of another kind of model, or does not fit to the last tensor.
    """
    with checked(path, trust=trust, pickled=True) as opened:
        state = read_tensors(opened, path)
        sha256 = opened.sha256
    config, weights = _parts(state, path)
    try:
        convolutions = layers.parse(str(config["model"].get("conv_feature_layers", _USUAL_CONVOLUTIONS)))
    except ValueError as error:
        raise ConfigError(f"{path}: refused: conv_feature_layers is {error}") from error
    task, model = _build(config, state.get("task_state") or {}, path)

    with compat.loading():
        weights, warnings = _fit_pos_conv(model, weights, path, pos_conv_policy)
    _load_strictly(model, weights, path)
    return LoadedHubert(
        model=model.eval().requires_grad_(False),
        convolutions=convolutions,
        sample_rate=int(task.cfg.sample_rate),
        normalize=bool(task.cfg.normalize),
        dim=int(model.encoder.embedding_dim),
        depth=len(model.encoder.layers),
        warnings=warnings,
        sha256=sha256,
    )


# HubertConfig's default, for checkpoints that leave it out.
_USUAL_CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


def _parts(state: Mapping[str, Any], path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, torch.Tensor]]:
    config, weights = state.get("cfg"), state.get("model")
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise ConfigError(f"{path}: not a checkpoint of fairseq: it has no cfg and model")
    if not all(isinstance(config.get(part), dict) for part in ("task", "model")):
        raise ConfigError(f"{path}: not a checkpoint of a model and its task: its cfg lacks one of them")
    kind = config["model"].get("_name")
    if kind != "hubert":
        raise ConfigError(f"{path}: a checkpoint of {kind!r}; this service encodes with hubert")
    if not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ConfigError(f"{path}: its model holds more than tensors")
    if not all(isinstance(name, str) for part in (weights, config["task"], config["model"]) for name in part):
        raise ConfigError(f"{path}: has weights or options whose names are not text")
    return {part: dict(config[part]) for part in ("task", "model")}, dict(weights)


def _build(config: dict[str, dict[str, Any]], task_state: Mapping[str, Any], path: Path) -> tuple[Any, Any]:
    known = {
        "task": _known_options(
            config["task"], compat.legacy("fairseq.tasks.hubert_pretraining").HubertPretrainingConfig
        ),
        "model": _known_options(config["model"], compat.legacy("fairseq.models.hubert").HubertConfig),
    }
    try:
        with compat.loading():
            options = compat.legacy("omegaconf").OmegaConf.create(known)
            task = compat.legacy("fairseq.tasks").setup_task(options.task)
            task.load_state_dict(task_state)
            return task, task.build_model(options.model)
    # fairseq, omegaconf and torch each have their own way to say that a value does not fit.
    except Exception as error:
        raise ConfigError(
            f"{path}: fairseq cannot build this model: {type(error).__name__}: {error}"
        ) from error


def _known_options(options: Mapping[str, Any], dataclass: type) -> dict[str, Any]:
    """Leave out what a later fairseq added; an option that shapes the model then fails the strict load."""
    known = {field.name for field in dataclasses.fields(dataclass)} | {"_name"}
    unknown = sorted(options.keys() - known)
    if unknown:
        log.debug("options that this fairseq does not know", extra={"options": unknown})
    return {key: value for key, value in options.items() if key in known}


def _fit_pos_conv(
    model: Any, weights: dict[str, torch.Tensor], path: Path, policy: PosConv
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    layer: Any = model.encoder.pos_conv
    if not isinstance(layer[0], nn.Conv1d):  # several convolutions, a form that only 0.12.2 has
        return weights, ()
    prefix = pos_conv.PREFIX
    shapes = {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    shape: pos_conv.Shape = tuple(layer.get_parameter("0.weight_v").shape)
    form = pos_conv.recognise(shapes, shape)
    if form.kind != "unrecoverable":
        model.encoder.pos_conv = pos_conv.give_form(layer, form)
        return weights, ()
    if policy == "exact":
        raise ConfigError(
            f"{path}: encoder.pos_conv cannot be recovered: {form.reason}; --pos-conv reinit draws that layer"
            " anew from a fixed seed, which changes the features by as much as their own size"
        )
    warning = (
        f"encoder.pos_conv was re-initialised from seed {pos_conv.REINIT_SEED}, because {form.reason}:"
        " units differ from those of the model that was trained"
    )
    log.warning(warning, extra={"checkpoint": str(path)})
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith(prefix) or name.endswith(".bias")
    }
    drawn = {prefix + name: tensor for name, tensor in pos_conv.reinitialised(shape).items()}
    return kept | drawn, (warning,)


def _load_strictly(model: Any, weights: dict[str, torch.Tensor], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is none of the model's" for name in found if name not in expected]
    faults += [
        f"{name} has shape {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ConfigError(f"{path}: does not fit the model it describes: {'; '.join(faults[:5])}{more}")
    model.load_state_dict(weights, strict=True)

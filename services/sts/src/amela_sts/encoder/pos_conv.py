"""Build the positional convolution that a checkpoint has, so that its weights load exactly.

fairseq's HuBERT has ``encoder.pos_conv``: a convolution under weight norm along dimension 2, a trim, a GELU.
Checkpoints come with other forms of it. Each is recognised by the names and shapes of its tensors; the model
is given a layer of that very form, and a strict load follows. Nothing is recomputed, so that the features
are those of the model that was saved.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrizations, remove_weight_norm, weight_norm

PREFIX = "encoder.pos_conv."
REINIT_SEED = 20210701

Shape = tuple[int, ...]
Kind = Literal["weight norm", "parametrized weight norm", "plain weight", "batch norm", "unrecoverable"]

_NORMED: tuple[tuple[Kind, str, str], ...] = (
    ("weight norm", "0.weight_g", "0.weight_v"),
    (
        "parametrized weight norm",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
    ),
)


@dataclass(frozen=True)
class Form:
    """How a checkpoint writes its positional convolution.

    Attributes
    ----------
    dim
        Dimension that the weight norm leaves; -1: none, it takes one norm over everything.
    reason
        Why nothing can recover the weights, if nothing can.
    """

    kind: Kind
    dim: int = -1
    reason: str = ""


def recognise(shapes: Mapping[str, Shape], weight: Shape) -> Form:
    """Recognise the form by the tensors' names, without `PREFIX`, and shapes.

    Parameters
    ----------
    weight
        Shape of the convolution's weight: outputs, inputs of a group, taps.
    """
    if "0.running_mean" in shapes:
        # fairseq's conv_pos_batch_norm, of August 2023.
        return Form("batch norm")
    for kind, magnitude, direction in _NORMED:
        if magnitude in shapes and direction in shapes:
            return _recognise_norm(kind, shapes[magnitude], shapes[direction], weight)
    return Form("plain weight")


def _recognise_norm(kind: Kind, magnitude: Shape, direction: Shape, weight: Shape) -> Form:
    if direction != weight:
        return Form(
            "unrecoverable",
            reason=f"its weight_v has shape {list(direction)} where the convolution has {list(weight)}",
        )
    if magnitude == ():
        return Form(kind)
    for dim in (2, 0, 1):
        if magnitude == tuple(size if at == dim else 1 for at, size in enumerate(weight)):
            return Form(kind, dim)
    return Form(
        "unrecoverable",
        reason=f"its weight_g of shape {list(magnitude)} is no norm of a weight of shape {list(weight)}",
    )


def give_form(layer: nn.Sequential, form: Form) -> nn.Sequential:
    """Turn fairseq's own layer into one of the given form, its weights still to be loaded."""
    if form.kind == "unrecoverable" or (form.kind, form.dim) == ("weight norm", 2):
        return layer
    conv: Any
    conv, *rest = layer
    remove_weight_norm(conv)
    if form.kind == "batch norm":
        # The norm cannot be folded into the convolution, whose zero padding comes after it.
        return nn.Sequential(nn.BatchNorm1d(conv.in_channels), conv, *rest)
    if form.kind == "weight norm":
        weight_norm(conv, dim=form.dim)
    elif form.kind == "parametrized weight norm":
        parametrizations.weight_norm(conv, dim=form.dim)
    return nn.Sequential(conv, *rest)


def reinitialised(weight: Shape) -> dict[str, torch.Tensor]:
    """Draw the weights that fairseq would start its training with, the same ones everywhere.

    Returns
    -------
    dict
        Tensors by name without `PREFIX`, for fairseq's own form of the layer.
    """
    generator = torch.Generator().manual_seed(REINIT_SEED)
    channels, _, taps = weight
    # fairseq's make_conv_pos, without dropout.
    drawn = torch.empty(weight).normal_(0.0, math.sqrt(4.0 / (taps * channels)), generator=generator)
    return {"0.weight_v": drawn, "0.weight_g": drawn.norm(dim=(0, 1), keepdim=True)}

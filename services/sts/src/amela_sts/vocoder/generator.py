"""The two routes to a CodeHiFiGAN: textless's, and where that is not installed fairseq's.

They are one network with one set of weights' names, but that fairseq 0.12.2 does not know styles. Its
generator is given the embedding here; how styles enter is the same for both, as the caller does it.
"""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any, Literal

from amela_common.errors import ConfigError
from torch import Tensor, nn

from amela_sts import compat
from amela_sts.checkpoints.integrity import checked
from amela_sts.checkpoints.tensors import read_tensors
from amela_sts.vocoder.config import VocoderConfig

log = logging.getLogger(__name__)

Route = Literal["textless", "fairseq"]


def available_route() -> Route:
    """Choose whose generator to use.

    Raises
    ------
    ConfigError
        If neither is installed: fairseq of 2021 has none.
    """
    if compat.has_textless():
        return "textless"
    with contextlib.suppress(ModuleNotFoundError):
        compat.legacy("fairseq.models.text_to_speech.codehifigan")
        return "fairseq"
    raise ConfigError(
        "no CodeHiFiGAN: install textless, or fairseq 0.12.2, which has its own; this fairseq has none"
    )


def build_generator(options: dict[str, Any], route: Route | None = None) -> Any:
    """Build a generator, its weights still to be loaded."""
    if (route or available_route()) == "textless":
        return compat.legacy("textless.vocoders.hifigan.generator").CodeGenerator(options)
    generator = compat.legacy("fairseq.models.text_to_speech.codehifigan").CodeGenerator(options)
    if options.get("multistyle"):
        generator.style = nn.Embedding(options.get("num_styles", 100), options["embedding_dim"])
    return generator


def load_generator(
    path: Path, config: VocoderConfig, *, trust: bool, route: Route | None = None
) -> tuple[Any, str]:
    """Load a generator for inference, and the digest of its weights.

    Raises
    ------
    ConfigError
        If the file is damaged, hostile or unknown, or its weights are not those of the configuration.
    """
    with checked(path, trust=trust, pickled=True) as opened:
        state = read_tensors(opened, path)
        sha256 = opened.sha256
    weights = state.get("generator")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ConfigError(f"{path}: not a HiFi-GAN's checkpoint: it has no `generator`")
    route = route or available_route()
    try:
        with compat.loading():
            generator = build_generator(config.options, route)
        generator.load_state_dict(weights, strict=True)
    # A configuration may say anything, and torch has many ways to say that it cannot be.
    except Exception as error:
        raise ConfigError(
            f"{path}: does not fit its configuration: {' '.join(str(error).split())}"
        ) from error
    # It prints that it does so.
    with contextlib.redirect_stdout(io.StringIO()):
        generator.remove_weight_norm()
    return generator.eval().requires_grad_(False), sha256

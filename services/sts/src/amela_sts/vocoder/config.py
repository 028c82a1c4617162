"""What a vocoder's JSON says, checked."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amela_common.errors import ConfigError

_NEEDED = (
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "num_embeddings",
    "embedding_dim",
)


@dataclass(frozen=True)
class VocoderConfig:
    """The facts of a CodeHiFiGAN.

    Attributes
    ----------
    options
        The JSON as it stands, for the generator's constructor.
    hop
        Samples that a unit becomes.
    context
        Units on either side of one that its samples hang on.
    speakers, styles
        How many there are; 0: the vocoder does not take one.
    """

    options: dict[str, Any]
    sample_rate: int
    vocabulary: int
    hop: int
    context: int
    speakers: int
    styles: int
    predicts_durations: bool


def read_config(path: Path) -> VocoderConfig:
    """Read a vocoder's configuration.

    Raises
    ------
    ConfigError
        If it is not JSON, lacks something, or describes a vocoder that this service cannot run.
    """
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path}: holds a {type(options).__name__}, not a vocoder's options")
    missing = [key for key in _NEEDED if key not in options]
    if missing:
        raise ConfigError(f"{path}: not a CodeHiFiGAN's configuration: {', '.join(missing)} missing")
    for key, what in (("f0", "pitch"), ("embedder_params", "speaker embeddings")):
        if options.get(key):
            raise ConfigError(
                f"{path}: this vocoder wants {what} besides units ({key}), which no request can give"
            )
    try:
        return _described(options, path)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{path}: not a CodeHiFiGAN's configuration: {error}") from error


def _described(options: dict[str, Any], path: Path) -> VocoderConfig:
    rates, kernels = options["upsample_rates"], options["upsample_kernel_sizes"]
    uneven = [
        f"{kernel} for rate {rate}"
        for rate, kernel in zip(rates, kernels, strict=False)
        if (kernel - rate) % 2
    ]
    if uneven or len(rates) != len(kernels):
        # An odd one makes a sample too many at each stage, and units would lose their place in time.
        raise ConfigError(
            f"{path}: upsample_kernel_sizes do not go with upsample_rates: {', '.join(uneven) or kernels}"
        )
    sample_rate = int(options.get("sampling_rate", 16000))
    if sample_rate < 1:
        raise ValueError(f"sampling_rate is {sample_rate}")
    return VocoderConfig(
        options=options,
        sample_rate=sample_rate,
        vocabulary=int(options["num_embeddings"]),
        hop=math.prod(rates),
        context=_context(options),
        speakers=int(options.get("num_speakers", 200)) if options.get("multispkr") else 0,
        styles=int(options.get("num_styles", 100)) if options.get("multistyle") else 0,
        predicts_durations=bool(options.get("dur_predictor_params")),
    )


def _context(options: dict[str, Any]) -> int:
    """Count the units on one side that reach a sample, layer by layer from the output backwards."""
    reach = 3  # the last convolution's 7 taps
    blocks = zip(options["resblock_kernel_sizes"], options["resblock_dilation_sizes"], strict=True)
    # A block's second convolutions are not dilated.
    widest = max(
        sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations) for kernel, dilations in blocks
    )
    stages = zip(options["upsample_rates"], options["upsample_kernel_sizes"], strict=True)
    for rate, kernel in reversed(list(stages)):
        reach += widest
        reach = math.ceil((reach + (kernel + rate) // 2) / rate)
    return reach + 3  # the first convolution's 7 taps

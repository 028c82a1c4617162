"""Models small enough to try the service with in seconds; untrained, so that their units mean nothing.

They are written in fairseq's own format by fairseq's own classes, as its trainer would have.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amela_sts import compat
from amela_sts.checkpoints.kmeans import save_centres
from amela_sts.encoder import pos_conv
from amela_sts.encoder.hubert import HubertEncoder
from amela_sts.encoder.loading import load_hubert
from amela_sts.vocoder.generator import build_generator

SAMPLE_RATE = 16000

TINY = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "final_dim": 16,
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
}
"""Options of `HubertConfig`; an empty dictionary makes a model of HuBERT base's size."""

_TASK = {
    "_name": "hubert_pretraining",
    "data": "data",
    "labels": ["km"],
    "label_rate": 50.0,
    "sample_rate": SAMPLE_RATE,
}


def write_hubert(
    path: Path,
    *,
    options: dict[str, Any] = TINY,
    seed: int = 0,
    normalize: bool = False,
    batch_norm: bool = False,
    change: Callable[[dict[str, Any]], None] = lambda state: None,
) -> None:
    """Write a HuBERT checkpoint.

    Parameters
    ----------
    batch_norm
        Whether it has the positional convolution of mHuBERT, behind a batch norm.
    change
        Called with the whole state before it is written.
    """
    labels = compat.legacy("fairseq.data.dictionary").Dictionary()
    for unit in range(20):
        labels.add_symbol(str(unit))
    task_options = _TASK | {"normalize": normalize}
    model_options = {"_name": "hubert", "label_rate": 50.0, "encoder_layerdrop": 0.05, **options}
    with torch.random.fork_rng(devices=[]), compat.loading():
        torch.manual_seed(seed)
        hubert = compat.legacy("fairseq.models.hubert")
        task = _config(
            compat.legacy("fairseq.tasks.hubert_pretraining").HubertPretrainingConfig, task_options
        )
        model = hubert.HubertModel(_config(hubert.HubertConfig, model_options), task, [labels])
        if batch_norm:
            model_options["conv_pos_batch_norm"] = True
            layer = pos_conv.give_form(model.encoder.pos_conv, pos_conv.Form("batch norm"))
            for name, values in layer[0].state_dict().items():
                if name != "num_batches_tracked":
                    values.uniform_(0.5, 1.5)
            model.encoder.pos_conv = layer
    state = {
        "args": None,
        "cfg": {
            "_name": None,
            "common": {"_name": None, "seed": 1},
            "task": task_options,
            "model": model_options,
            "criterion": {"_name": "hubert"},
            "optimizer": {"_name": "adam"},
        },
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "HubertCriterion", "lr_scheduler_state": {"best": None}, "num_updates": 1}
        ],
        "task_state": {"dictionaries": [labels]},
        "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": np.float64(3.3)},
        "last_optimizer_state": None,
    }
    change(state)
    torch.save(state, path)


def _config(dataclass: type, options: dict[str, Any]) -> Any:
    config = compat.legacy("omegaconf").OmegaConf
    return config.merge(config.structured(dataclass), {k: v for k, v in options.items() if k != "_name"})


def write_centres(path: Path, hubert: Path, layer: int, *, clusters: int = 50, seed: int = 0) -> None:
    """Write k-means centres as npz: frames of the model's own features on noise, moved about a little."""
    encoder = HubertEncoder(load_hubert(hubert, trust=True), layer, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    noise = [0.1 * torch.randn(SAMPLE_RATE, generator=generator) for _ in range(-(-clusters // 40))]
    frames = torch.cat(encoder.features(noise))
    chosen = frames[torch.randperm(len(frames), generator=generator)[:clusters]]
    centres = chosen + 0.3 * chosen.std() * torch.randn(chosen.shape, generator=generator)
    save_centres(path, centres.numpy(), source="tiny")


def write_vocoder(
    weights: Path,
    config: Path,
    *,
    clusters: int = 50,
    speakers: int = 4,
    styles: int = 3,
    durations: bool = True,
    channels: int = 32,
    width: int = 8,
    seed: int = 0,
) -> None:
    """Write a CodeHiFiGAN and its configuration; 0 speakers or styles leave that part out."""
    options: dict[str, Any] = {
        "sampling_rate": SAMPLE_RATE,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "upsample_rates": [5, 4, 4, 2, 2],
        "upsample_kernel_sizes": [11, 8, 8, 4, 4],
        "upsample_initial_channel": channels,
        "num_embeddings": clusters,
        "embedding_dim": width,
        "model_in_dim": width * (1 + bool(speakers) + bool(styles)),
    }
    if speakers:
        options |= {"multispkr": "from_input_file", "num_speakers": speakers}
    if styles:
        options |= {"multistyle": "from_input_file", "num_styles": styles}
    if durations:
        options["dur_predictor_params"] = {
            "encoder_embed_dim": width,
            "var_pred_hidden_dim": width,
            "var_pred_kernel_size": 3,
            "var_pred_dropout": 0.5,
        }
    config.write_text(json.dumps(options))
    with torch.random.fork_rng(devices=[]), compat.loading():
        torch.manual_seed(seed)
        generator = build_generator(options)
    # Weights before training are so small that nothing would be heard, or compared.
    for name, values in generator.state_dict().items():
        if name.endswith("weight_g"):
            values.fill_(0.4 if "resblocks" in name else 1.0)
        elif name.startswith("dur_predictor.proj"):
            values.uniform_(0.0, 1.0, generator=torch.Generator().manual_seed(seed))
    torch.save({"generator": generator.state_dict()}, weights)


def write_model(folder: Path, *, clusters: int = 50, layer: int = 2) -> Path:
    """Write a whole model with names for its voices, and return the path of its TOML file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_hubert(folder / "hubert.pt", batch_norm=True)
    write_centres(folder / "kmeans.npz", folder / "hubert.pt", layer, clusters=clusters)
    write_vocoder(folder / "vocoder.pt", folder / "vocoder.json", clusters=clusters)
    (folder / "speakers.txt").write_text("ex01\nex02\nex03\nex04\n")
    (folder / "styles.txt").write_text("default\nhappy\nwhisper\n")
    card = folder / "tiny.toml"
    card.write_text(
        f'layer = {layer}\ndense = "hubert.pt"\nkmeans = "kmeans.npz"\nvocoder = "vocoder.pt"\n'
        'vocoder_config = "vocoder.json"\nspeakers = "speakers.txt"\nstyles = "styles.txt"\n'
    )
    return card

"""What the tiny models are built of: NeMo's configurations, with one encoder that all of them share."""

from pathlib import Path
from typing import Any

from tests.models.nemo_tiny.corpus import LETTERS, SAMPLE_RATE

FEATURES = 40
ENCODER_WIDTH = 56
PREDICTION_WIDTH = 56
TDT_DURATIONS = (1, 2, 3, 4)
LLM_WIDTH = 96
LOCATOR = "<|audioplaceholder|>"

PREPROCESSOR: dict[str, Any] = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    "sample_rate": SAMPLE_RATE,
    "normalize": "per_feature",
    "window_size": 0.025,
    "window_stride": 0.01,
    "window": "hann",
    "features": FEATURES,
    "n_fft": 512,
    "frame_splicing": 1,
    "dither": 1e-5,
    "pad_to": 0,
}
ENCODER: dict[str, Any] = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "feat_in": FEATURES,
    "feat_out": -1,
    "n_layers": 3,
    "d_model": ENCODER_WIDTH,
    "subsampling": "dw_striding",
    "subsampling_factor": 4,
    "subsampling_conv_channels": 32,
    "ff_expansion_factor": 2,
    "self_attention_model": "rel_pos",
    "n_heads": 4,
    "att_context_size": [-1, -1],
    "xscaling": False,
    "untie_biases": True,
    "pos_emb_max_len": 5000,
    "conv_kernel_size": 9,
    "conv_norm_type": "batch_norm",
    "dropout": 0.0,
    "dropout_pre_encoder": 0.0,
    "dropout_emb": 0.0,
    "dropout_att": 0.0,
}
_COMMON: dict[str, Any] = {
    "sample_rate": SAMPLE_RATE,
    "preprocessor": PREPROCESSOR,
    "encoder": ENCODER,
    "log_prediction": False,
    "train_ds": None,
    # NeMo looks into this to transcribe paths.
    "validation_ds": {"manifest_filepath": None, "shuffle": False, "use_start_end_token": False},
    "optim": {"name": "adamw", "lr": 1e-3},
}


def ctc_char() -> dict[str, Any]:
    """An EncDecCTCModel over letters."""
    decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None,
        "num_classes": len(LETTERS),
        "vocabulary": list(LETTERS),
    }
    return {**_COMMON, "labels": list(LETTERS), "decoder": decoder, "decoding": {"strategy": "greedy_batch"}}


def ctc_bpe(tokenizer: Path) -> dict[str, Any]:
    """An EncDecCTCModelBPE over the pieces of a tokenizer's folder."""
    decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None,
        "num_classes": -1,
        "vocabulary": [],
    }
    return {
        **_COMMON,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "decoder": decoder,
        "decoding": {"strategy": "greedy_batch"},
    }


def tdt(tokenizer: Path) -> dict[str, Any]:
    """An EncDecRNNTBPEModel whose joint network also tells how long each piece lasts."""
    durations = list(TDT_DURATIONS)
    return {
        **_COMMON,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "model_defaults": {
            "enc_hidden": ENCODER_WIDTH,
            "pred_hidden": PREDICTION_WIDTH,
            "joint_hidden": PREDICTION_WIDTH,
            "tdt_durations": durations,
            "num_tdt_durations": len(durations),
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": PREDICTION_WIDTH, "pred_rnn_layers": 1, "dropout": 0.0},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "num_extra_outputs": len(durations),
            "jointnet": {"joint_hidden": PREDICTION_WIDTH, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": durations,
            "greedy": {"max_symbols": 10},
        },
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": durations, "sigma": 0.0, "omega": 0.0}},
    }


def salm(llm: Path) -> dict[str, Any]:
    """A SALM over a language model's folder, whose weights start at random."""
    perception = {
        "_target_": "nemo.collections.speechlm2.modules.perception.AudioPerceptionModule",
        "output_dim": LLM_WIDTH,
        "preprocessor": PREPROCESSOR,
        "encoder": ENCODER,
        "modality_adapter": {
            "_target_": "nemo.collections.speechlm2.modules.perception.IdentityConnector",
            "d_model": ENCODER_WIDTH,
        },
    }
    return {
        "pretrained_llm": str(llm),
        "pretrained_weights": False,
        "prompt_format": "qwen",
        "audio_locator_tag": LOCATOR,
        "freeze_params": [],
        "prevent_freeze_params": [],
        "perception": perception,
    }

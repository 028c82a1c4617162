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

_TRANSDUCER_WIDTHS = {
    "enc_hidden": ENCODER_WIDTH,
    "pred_hidden": PREDICTION_WIDTH,
    "joint_hidden": PREDICTION_WIDTH,
}
_PREDICTION: dict[str, Any] = {
    "_target_": "nemo.collections.asr.modules.RNNTDecoder",
    "normalization_mode": None,
    "random_state_sampling": False,
    "blank_as_pad": True,
    "prednet": {"pred_hidden": PREDICTION_WIDTH, "pred_rnn_layers": 1, "dropout": 0.0},
}


def _joint(extra_outputs: int) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.RNNTJoint",
        "log_softmax": None,
        "preserve_memory": False,
        "fuse_loss_wer": False,
        "num_extra_outputs": extra_outputs,
        "jointnet": {"joint_hidden": PREDICTION_WIDTH, "activation": "relu", "dropout": 0.0},
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


def rnnt(tokenizer: Path) -> dict[str, Any]:
    """An EncDecRNNTBPEModel."""
    return {
        **_COMMON,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "model_defaults": _TRANSDUCER_WIDTHS,
        "decoder": _PREDICTION,
        "joint": _joint(extra_outputs=0),
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
        "loss": {"loss_name": "default"},
    }


def hybrid(tokenizer: Path) -> dict[str, Any]:
    """An EncDecHybridRNNTCTCBPEModel: a transducer with a CTC decoder beside it."""
    ctc = ctc_bpe(tokenizer)
    beside = {"ctc_loss_weight": 0.3, "decoder": ctc["decoder"], "decoding": ctc["decoding"]}
    return {**rnnt(tokenizer), "aux_ctc": beside}


def tdt(tokenizer: Path) -> dict[str, Any]:
    """An EncDecRNNTBPEModel whose joint network also tells how long each piece lasts."""
    durations = list(TDT_DURATIONS)
    return {
        **_COMMON,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "model_defaults": {
            **_TRANSDUCER_WIDTHS,
            "tdt_durations": durations,
            "num_tdt_durations": len(durations),
        },
        "decoder": _PREDICTION,
        "joint": _joint(extra_outputs=len(durations)),
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": durations,
            "greedy": {"max_symbols": 10},
        },
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": durations, "sigma": 0.0, "omega": 0.0}},
    }


def canary(prompt_format: str, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """An EncDecMultiTaskModel: a decoder of text that a prompt in this format begins."""
    decoder = {
        "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer",
        "model_name": None,
        "pretrained": False,
        "encoder": None,
        "pre_ln_final_layer_norm": True,
        "config_dict": {
            "max_sequence_length": 256,
            "num_token_types": 0,
            "hidden_size": ENCODER_WIDTH,
            "inner_size": 2 * ENCODER_WIDTH,
            "num_layers": 2,
            "num_attention_heads": 4,
            "ffn_dropout": 0.0,
            "attn_score_dropout": 0.0,
            "attn_layer_dropout": 0.0,
            "embedding_dropout": 0.0,
            "hidden_act": "relu",
            "pre_ln": True,
        },
    }
    head = {
        "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier",
        "num_layers": 1,
        "hidden_size": ENCODER_WIDTH,
        "activation": "relu",
        "log_softmax": True,
        "dropout": 0.0,
        "use_transformer_init": True,
    }
    loss = {
        "_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
        "label_smoothing": 0.0,
    }
    return {
        **_COMMON,
        "validation_ds": None,
        "prompt_format": prompt_format,
        "tokenizer": tokenizer,
        "model_defaults": {
            "asr_enc_hidden": ENCODER_WIDTH,
            "lm_enc_hidden": ENCODER_WIDTH,
            "lm_dec_hidden": ENCODER_WIDTH,
        },
        "transf_decoder": decoder,
        "head": head,
        "loss": loss,
        "decoding": {"strategy": "beam", "beam": {"beam_size": 1, "max_generation_delta": 50}},
        # To be looked for in a checkpoint: there is none yet.
        "restore_timestamps_model": False,
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

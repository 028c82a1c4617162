"""Sends noise through each engine of the image, NeMo's with a model of random weights made for it."""

import importlib.util
import tempfile
from pathlib import Path

from amela_asr.engines.pocketsphinx import Recognizer

VOCABULARY = list("abc ")
MODEL = {
    "sample_rate": 16_000,
    "labels": VOCABULARY,
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "window_size": 0.025,
        "window_stride": 0.01,
        "features": 16,
        "n_fft": 512,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 16,
        "feat_out": -1,
        "n_layers": 1,
        "d_model": 16,
        "n_heads": 2,
        "subsampling": "dw_striding",
        "subsampling_conv_channels": 16,
        "conv_kernel_size": 9,
    },
    "decoder": {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None,
        "num_classes": len(VOCABULARY),
        "vocabulary": VOCABULARY,
    },
    "decoding": {"strategy": "greedy_batch"},
}


def nemo() -> None:
    """Write a checkpoint, load it as the server does and recognise; import what SALMs are made of."""
    from amela_asr.engines.loading import load_recognizer  # noqa: PLC0415 - only where NeMo is
    from amela_asr.engines.quiet import quiet_import  # noqa: PLC0415
    from amela_asr.engines.sizing import try_out  # noqa: PLC0415

    with quiet_import():
        from nemo.collections.asr.models import EncDecCTCModel  # noqa: PLC0415
        from nemo.collections.speechlm2.models import SALM  # noqa: F401, PLC0415
        from omegaconf import OmegaConf  # noqa: PLC0415
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canary.nemo"
        EncDecCTCModel(OmegaConf.create(MODEL)).save_to(str(path))
        try_out(load_recognizer(str(path), offline=True))


if __name__ == "__main__":
    Recognizer()  # tries itself out
    if importlib.util.find_spec("nemo") is not None:
        nemo()

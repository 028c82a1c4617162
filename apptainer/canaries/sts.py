"""Imports fairseq with all accommodations and sends noise through a whole model of random weights."""

import tempfile
from pathlib import Path

from amela_common.batching.torch_device import TorchDevice
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.engine import StsEngine
from amela_sts.tiny import write_model

with tempfile.TemporaryDirectory() as folder:
    card = write_model(Path(folder))
    StsEngine(ModelFiles.find(str(card), Path(folder)), TorchDevice("auto").torch, trust=True).canary()

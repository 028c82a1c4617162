"""What an operator of `amela-sts` can set besides what every server takes."""

from pathlib import Path
from typing import Literal

from amela_common.server import ServerSettings
from pydantic import Field, field_validator

from amela_sts.checkpoints.model_files import CHECKPOINT_ROOT


class StsSettings(ServerSettings):
    """Options of ``amela-sts``."""

    model: str = "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000"
    """A published model by name, as `amela-sts models` lists them, or a .toml file that names the parts of
    another: layer, dense, kmeans, vocoder, vocoder_config, speakers, styles."""
    checkpoint_root: Path = CHECKPOINT_ROOT
    """Folder of the published checkpoints. Default: TEXTLESS_CHECKPOINT_ROOT, else ~/.textless."""
    trust: bool = False
    """Open pickles whose checksum is not a published one's."""
    pos_conv: Literal["exact", "reinit"] = "exact"
    """What to do with a positional convolution that nothing can recover: refuse the model, or draw the layer
    anew from a fixed seed. Units then differ from the trained model's; GetInfo says so."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: the first GPU if there is one."""
    batch_seconds: float | None = Field(None, ge=0)
    """Most seconds of audio in one batch, padding included; 0 computes one item at a time. Default: one at a
    time on a CPU, which gains nothing by batches; on a GPU found by trying."""
    gpu_memory_mib: int | None = Field(None, ge=1024)
    """Memory of its GPU that this server may take, where several share one. Default: all of it."""
    front_workers: int = Field(3, ge=2)
    """Processes that decode audio. One is kept for recordings of up to 100 s; each of the others can have a
    longer one at a time."""

    @field_validator("checkpoint_root")
    @classmethod
    def _expanded(cls, value: Path) -> Path:
        return value.expanduser().absolute()

"""What an operator of `amela-asr` can set besides what every server takes."""

import os
from pathlib import Path
from typing import Literal

from amela_common.server import ServerSettings
from pydantic import Field


class AsrSettings(ServerSettings):
    """Options of ``amela-asr``."""

    engine: Literal["pocketsphinx", "nemo", "salm", "triton"] | None = None
    """What recognises. Default: what the model is for, and pocketsphinx without a model."""
    model: str | None = None
    """A .nemo file, a folder that `amela-asr stage` made, a SALM's folder, or a name on Hugging Face such as
    nvidia/canary-qwen-2.5b; for triton, a model of its repository. Default: the engine's own."""
    offline: bool = False
    """Never look for a model on the network: take it from Hugging Face's cache on this node."""
    device: str = "auto"
    """Where a nemo or salm model computes: cpu, cuda, cuda:1, … Default: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What a nemo or salm model computes in. Default: the best that the device is fast in."""
    languages: str = "en"
    """Languages that a salm model may be told to expect, as tags separated by commas."""
    batch_size: int | None = Field(None, ge=1)
    """Most clips in a batch. Default: found by measuring."""
    batch_seconds: float | None = Field(None, gt=0)
    """Most seconds of audio in a batch, padding included. Default: found by measuring."""
    gpu_memory_mib: int | None = Field(None, ge=1024)
    """Memory of its GPU that this server may take, where several share one. Default: all of it."""
    max_wait_ms: float = Field(10.0, ge=0)
    """How long a clip waits for others to share its batch while the device is idle."""
    triton_url: str | None = None
    """Triton's gRPC address, HOST:PORT."""
    triton_ca: Path | None = None
    """Certificate authority (PEM) of Triton's certificate: call it by TLS."""
    workers: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """Processes that recognise, for engines on CPU. Default: one for each core."""
    front_workers: int = Field(3, ge=2)
    """Processes that decode audio and find the speech in it. One is kept for short recordings; each of the
    others can have a recording of many hours at a time."""
    max_piece_seconds: float = Field(30.0, ge=5)
    """Longest piece that the engine is given; longer speech is cut in its pauses."""

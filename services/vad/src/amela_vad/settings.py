"""What an operator of `amela-vad` can set besides what every server takes."""

import os

from amela_common.server import ServerSettings
from pydantic import Field


class VadSettings(ServerSettings):
    """Options of ``amela-vad``."""

    workers: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """Processes that decode and detect. Default: one for each core that this process may use."""
    streams: int = Field(64, ge=0)
    """Live streams at the same time; one more is refused at once. A core keeps up with about 200."""

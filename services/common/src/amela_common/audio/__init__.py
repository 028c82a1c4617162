"""Audio in: from a request's recording to mono float32 samples at an engine's rate."""

from amela_common.audio.reading import Clip, load_clip, read_blocks
from amela_common.audio.source import AudioLimits, AudioSource

__all__ = ["AudioLimits", "AudioSource", "Clip", "load_clip", "read_blocks"]

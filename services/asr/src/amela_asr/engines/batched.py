"""An engine that gathers the clips of all its callers into batches for one device."""

import logging
from collections.abc import Callable, Hashable
from math import ceil

from amela.common.v1.server_pb2 import Gpu
from amela_common.audio import Clip
from amela_common.batching import Batcher, BatchMetrics, DeviceThread
from amela_common.errors import ConfigError
from amela_common.server import Runtime

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.engines.screening import check_clip, is_silent
from amela_asr.engines.sizing import TYPICAL_SECONDS, Batching, find_budget, try_out

log = logging.getLogger(__name__)


class BatchedEngine:
    """A recogniser on its device's thread, behind a batcher.

    Parameters
    ----------
    model
        The model as its users call it.
    load
        Loads the model; called on the thread that will own the device.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str, load: Callable[[], Recognizer], batching: Batching, runtime: Runtime
    ) -> None:
        self.name = "nemo"
        self.model = model
        self.device = batching.device
        self.gpu: Gpu | None = None
        self.batch_seconds = 0.0
        self.fingerprint = ""
        self.warnings: tuple[str, ...] = ()
        self.capabilities = Capabilities()
        # Known, and held against the settings, once the model is loaded.
        self.max_piece_seconds = float("inf")
        self._load = load
        self._batching = batching
        self._runtime = runtime
        # One batch on the device and one that gathers meanwhile.
        self.concurrency = max(8, ceil(2 * batching.start.seconds / TYPICAL_SECONDS))
        self._thread = DeviceThread("device")
        self._recognizer: Recognizer | None = None
        self._batcher: Batcher[Utterance, Recognition] | None = None

    async def load(self) -> None:
        """Load the model, recognise a canary, and find how large a batch may be."""
        recognizer = self._recognizer = await self._thread.run(self._load)
        self.name = recognizer.name
        self.model = recognizer.model
        self.device = recognizer.device.name
        self.gpu = recognizer.device.describe()
        self.fingerprint = recognizer.fingerprint
        self.warnings = recognizer.warnings
        self.capabilities = recognizer.capabilities
        self.max_piece_seconds = recognizer.max_piece_seconds
        if self._batching.piece_seconds > self.max_piece_seconds:
            raise ConfigError(
                f"--max-piece-seconds {self._batching.piece_seconds:g}: {self.model} takes pieces of at most"
                f" {self.max_piece_seconds:g} s"
            )
        try:
            await self._thread.run(try_out, recognizer)
        except (ImportError, FileNotFoundError) as error:
            # Some ways of decoding want a library or a language model of their own, and say so in lines.
            raise ConfigError(
                f"--model {self.model} wants for decoding what is not here ({' '.join(str(error).split())});"
                " install it, or save the checkpoint with another decoding strategy"
            ) from error
        budget = await self._thread.run(find_budget, recognizer, self._batching)
        self.batch_seconds = round(budget.seconds, 1)
        log.info("batches", extra={"budget_seconds": self.batch_seconds})
        self._batcher = Batcher(
            recognizer.recognize,
            self._thread,
            recognizer.device,
            budget,
            max_wait=self._batching.max_wait,
            metrics=BatchMetrics(self._runtime.metrics.registry),
            on_broken=self._runtime.fail,
        )

    async def recognize(self, clip: Clip, options: Options, caller: Hashable) -> Recognition:
        """Recognise one clip in a batch with others; what holds no sound is not given to the model."""
        check_clip(clip)
        if is_silent(clip):
            return Recognition("", words=() if options.words else None)
        assert self._batcher is not None
        assert self._recognizer is not None
        kind = self._recognizer.kind(options)
        return await self._batcher.submit(
            Utterance(clip, options), seconds=clip.duration, caller=caller, kind=kind
        )

    async def close(self) -> None:
        """Stop; the device's thread ends after the batch it computes."""
        if self._batcher is not None:
            await self._batcher.close()
        self._thread.close()

"""From ``--model`` to a recogniser in memory."""

import os
from collections.abc import Callable
from functools import partial

from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError

from amela_asr.engines.checkpoint import Checkpoint, Family, find, is_local
from amela_asr.engines.recognizer import Recognizer
from amela_asr.settings import AsrSettings


def checkpoint_loader(settings: AsrSettings, model: str) -> Callable[[], Recognizer]:
    """Make what loads the settings' model; a file or folder is looked at now.

    Raises
    ------
    ConfigError
        If there is no such file or folder, or it is for another engine.
    """
    # Beam search shows a bar for each batch. Read when tqdm is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    offline = settings.offline or is_local(model)
    if offline:
        # Read when Hugging Face's libraries are imported, in this process and by NeMo.
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        _check_family(find(model, offline=True), settings.engine)
    languages = tuple(tag.strip() for tag in settings.languages.split(","))
    return partial(
        load_recognizer,
        model,
        offline=offline,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        languages=languages,
        memory_mib=settings.gpu_memory_mib,
    )


def load_recognizer(
    model: str,
    *,
    offline: bool,
    engine: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    languages: tuple[str, ...] = ("en",),
    memory_mib: int | None = None,
) -> Recognizer:
    """Find a model, fetch it if need be, and load it.

    Parameters
    ----------
    memory_mib
        Most memory of a GPU that it and its batches may take. None: what there is.

    Raises
    ------
    ConfigError
        If it cannot be found or loaded.
    """
    checkpoint = find(model, offline=offline)
    _check_family(checkpoint, engine)
    where = TorchDevice(device)
    where.keep_to(memory_mib)
    with where.room_for(checkpoint.name):
        if checkpoint.family is Family.SALM:
            from amela_asr.engines.salm import load_salm  # noqa: PLC0415

            return load_salm(checkpoint, where, precision, languages)
        from amela_asr.engines.nemo import load_nemo  # noqa: PLC0415

        return load_nemo(checkpoint, where, precision)


def _check_family(checkpoint: Checkpoint, engine: str | None) -> None:
    if engine not in (None, checkpoint.family.value):
        raise ConfigError(
            f"--engine {engine}: {checkpoint.name} is a model for --engine {checkpoint.family.value}"
        )

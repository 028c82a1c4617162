"""The engines, by the name that ``--engine`` has for them.

Each is imported only when it is asked for: an image holds the libraries of its own engine.
"""

from collections.abc import Callable

from amela_common.errors import ConfigError
from amela_common.server import Runtime

from amela_asr.engine import Engine
from amela_asr.settings import AsrSettings


def _pocketsphinx(settings: AsrSettings, runtime: Runtime) -> Engine:
    from amela_asr.engines.pocketsphinx import PocketsphinxEngine  # noqa: PLC0415

    return PocketsphinxEngine(settings.model, settings.workers, runtime.metrics.worker_restarts.inc)


def _checkpoint(settings: AsrSettings, runtime: Runtime) -> Engine:
    from amela_asr.engines.batched import BatchedEngine  # noqa: PLC0415
    from amela_asr.engines.loading import checkpoint_loader  # noqa: PLC0415
    from amela_asr.engines.sizing import Batching  # noqa: PLC0415

    if settings.model is None:
        raise ConfigError(f"--engine {settings.engine}: it has no model of its own; say which with --model")
    loader = checkpoint_loader(settings, settings.model)
    return BatchedEngine(settings.model, loader, Batching.from_settings(settings), runtime)


def _triton(settings: AsrSettings, runtime: Runtime) -> Engine:
    from amela_asr.engines.triton import TritonEngine  # noqa: PLC0415

    if settings.triton_url is None:
        raise ConfigError("--engine triton: say where it is with --triton-url HOST:PORT")
    return TritonEngine(settings.triton_url, settings.model, settings.triton_ca, runtime)


ENGINES: dict[str, Callable[[AsrSettings, Runtime], Engine]] = {
    "pocketsphinx": _pocketsphinx,
    "nemo": _checkpoint,
    "salm": _checkpoint,
    "triton": _triton,
}


def create_engine(settings: AsrSettings, runtime: Runtime) -> Engine:
    """Make the engine that the settings name or that their model is for, without loading it.

    Raises
    ------
    ConfigError
        If there is no such engine, or not with these settings.
    """
    if settings.engine is not None:
        return ENGINES[settings.engine](settings, runtime)
    if settings.triton_url is not None:
        return _triton(settings, runtime)
    if settings.model in (None, "en-us"):
        return _pocketsphinx(settings, runtime)
    return _checkpoint(settings, runtime)

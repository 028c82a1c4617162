"""Read k-means centres, from npz or from the joblib pickles that were published.

Such a pickle is a whole scikit-learn estimator. Only its centres matter, so it is read by an unpickler that
knows numpy's arrays and makes an empty shell of scikit-learn's objects and random states: nothing of it runs.
"""

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from amela_common.errors import ConfigError
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from numpy.typing import NDArray

from amela_sts.checkpoints.integrity import CheckedFile, checked
from amela_sts.checkpoints.whole_file import whole_file

Centres: TypeAlias = NDArray[np.float32]

_SAFE = {
    ("_codecs", "encode"),  # how protocol 2 writes bytes
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


class _Shell:
    """Stands for an object: takes its attributes, does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _CentresUnpickler(NumpyUnpickler):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _Array
        if (module, name) in _SAFE:
            return super().find_class(module, name)
        if module.partition(".")[0] == "sklearn" or module.startswith("numpy.random"):
            return _Shell
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class _Array(NumpyArrayWrapper):  # type: ignore[misc]
    """Stands where an array follows. One of objects is a pickle again, which joblib before 1.6 just opens."""

    def read_array(self, unpickler: _CentresUnpickler, *rest: Any) -> Any:
        if self.dtype.hasobject:
            return _CentresUnpickler(
                unpickler.filename, unpickler.file_handle, ensure_native_byte_order=True
            ).load()
        return super().read_array(unpickler, *rest)


def load_centres(path: Path, *, trust: bool) -> tuple[Centres, str]:
    """Load centres.

    A pickle's centres are kept beside it as ``NAME.npz``, if that folder can be written, and read from there
    the next time as long as the pickle is the same.

    Returns
    -------
    centres
        float32[clusters, dimensions].
    sha256
        Digest of the file.

    Raises
    ------
    ConfigError
        If the file is damaged, unknown or hostile.
    """
    is_npz = path.suffix == ".npz"
    with checked(path, trust=trust, pickled=not is_npz) as opened:
        if is_npz:
            return _read_npz(path), opened.sha256
        kept = path.with_name(path.name + ".npz")
        if kept.is_file() and _source_of(kept) == opened.sha256:
            return _read_npz(kept), opened.sha256
        centres = _checked_shape(_unpickle(opened, path), path)
    save_centres(kept, centres, opened.sha256)
    return centres, opened.sha256


def save_centres(path: Path, centres: Centres, source: str) -> None:
    """Write centres as npz, whole or not at all; a folder that cannot be written is let be."""
    with suppress(OSError), whole_file(path) as file:
        np.savez(file, centres=centres, source=np.array(source))


def _unpickle(opened: CheckedFile, path: Path) -> Any:
    try:
        model = _CentresUnpickler(str(path), opened.file, ensure_native_byte_order=True).load()
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: refused, it is not a k-means model alone and could run code: {error}"
        ) from error
    # What a damaged pickle raises is anybody's guess.
    except Exception as error:
        raise ConfigError(f"{path}: not a k-means model, or a damaged one: {error}") from error
    if not hasattr(model, "cluster_centers_"):
        raise ConfigError(
            f"{path}: holds a {type(model).__name__} without cluster_centers_, not a k-means model"
        )
    return model.cluster_centers_


def _read_npz(path: Path) -> Centres:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            centres = arrays["centres"]
    # What a damaged file raises is anybody's guess, here and below.
    except Exception as error:
        raise ConfigError(f"{path}: not an npz with an array `centres`: {error}") from error
    return _checked_shape(centres, path)


def _source_of(path: Path) -> str:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays["source"])
    except Exception:
        return ""


def _checked_shape(centres: Any, path: Path) -> Centres:
    centres = np.asarray(centres)
    if centres.ndim != 2 or centres.dtype.kind != "f" or not np.isfinite(centres).all() or not centres.size:
        raise ConfigError(
            f"{path}: centres are {centres.dtype}{list(centres.shape)}, not finite floats [clusters, width]"
        )
    return np.ascontiguousarray(centres, dtype=np.float32)

"""TEN-VAD: how likely each 16 ms of a recording are speech.

The library is called without its Python face, which looks at every frame three times over and
has no way to close a handle at a given moment.
"""

import ctypes
import hashlib
import weakref
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from amela_common.errors import ConfigError

SAMPLE_RATE = 16000
HOP_SAMPLES = 256
HOP = HOP_SAMPLES / SAMPLE_RATE

# To be raised with any change to this file that changes probabilities.
_REVISION = 1

# Only the library's own flags depend on it, and those are not used.
_LIBRARY_THRESHOLD = 0.5


class Detector:
    """One pass of TEN-VAD over one recording.

    A handle of the library carries state from frame to frame, and from one recording to the next,
    so each recording takes a detector of its own; it costs less than a millisecond. Detectors may run
    in several threads at once, each in one.

    TEN-VAD forgets its recurrent state every 1875 frames, which is 30 s, so its answer about a moment
    depends on where the recording began. Passes that began a multiple of 30 s apart agree bit for bit
    once both have forgotten.

    ```
    with Detector() as detector:
        probabilities = [detector.process(block) for block in blocks]
        probabilities.append(detector.finish())
    ```

    Raises
    ------
    ConfigError
        If the library cannot be loaded.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._rest = np.empty(0, np.int16)
        if self._library.ten_vad_create(ctypes.byref(self._handle), HOP_SAMPLES, _LIBRARY_THRESHOLD):
            raise MemoryError("TEN-VAD could not make a detector")
        self._free = weakref.finalize(self, _destroy, self._library, self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the library's handle; the detector cannot be used any more.

        It is freed with the detector at the latest, so whoever cannot know when a thread has left it
        may just drop it.
        """
        self._free()

    def process(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples, shape (samples,), full scale ±1, and return the frames now complete.

        Returns
        -------
        ndarray
            Shape (frames,): the probability of speech in each, 0 to 1.
        """
        scaled = np.rint(samples * np.float32(32768))
        return self.process_int16(np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16))

    def process_int16(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Do as `process` does for samples of 16 bits."""
        if self._rest.size:
            samples = np.concatenate([self._rest, samples])
        samples = np.ascontiguousarray(samples, np.int16)
        frames = len(samples) // HOP_SAMPLES
        self._rest = samples[frames * HOP_SAMPLES :].copy()
        return self._run(samples, frames)

    def finish(self) -> NDArray[np.float32]:
        """Return the frame of the samples left over, filled up with zeros: shape (0,) or (1,)."""
        if not self._rest.size:
            return np.empty(0, np.float32)
        last = np.zeros(HOP_SAMPLES, np.int16)
        last[: self._rest.size] = self._rest
        self._rest = self._rest[:0]
        return self._run(last, 1)

    def _run(self, samples: NDArray[np.int16], frames: int) -> NDArray[np.float32]:
        if not self._free.alive:
            raise ValueError("the detector is closed")
        probabilities = np.empty(frames, np.float32)
        flag = ctypes.c_int32()
        process, handle = self._library.ten_vad_process, self._handle.value
        source, target, ignored = samples.ctypes.data, probabilities.ctypes.data, ctypes.addressof(flag)
        for frame in range(frames):
            process(
                handle,
                source + frame * HOP_SAMPLES * samples.itemsize,
                HOP_SAMPLES,
                target + frame * probabilities.itemsize,
                ignored,
            )
        return probabilities


def _destroy(library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
    library.ten_vad_destroy(ctypes.byref(handle))


def fingerprint() -> str:
    """Digest of what decides the probabilities: 16 hexadecimal digits."""
    digest = hashlib.sha256(_library_path().read_bytes())
    digest.update(f"hop {HOP_SAMPLES} revision {_REVISION}".encode())
    return digest.hexdigest()[:16]


def _library_path() -> Path:
    package = find_spec("ten_vad")
    if package is None or package.origin is None:
        raise ConfigError("TEN-VAD is not installed: pip install ten-vad")
    return Path(package.origin).parent / "lib/Linux/x64/libten_vad.so"


@cache
def _load() -> ctypes.CDLL:
    path = _library_path()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(
            f"TEN-VAD's library {path} cannot be loaded ({error}): it is for Linux on x86-64"
            " and needs Debian's package libc++1"
        ) from error
    library.ten_vad_create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float]
    library.ten_vad_destroy.argtypes = [ctypes.c_void_p]
    # Addresses as plain numbers: one call for each frame, and converting pointers would show.
    library.ten_vad_process.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return library

"""The images, each built by `make image-NAME` when a test first asks for it, by a real Apptainer."""

import fcntl
import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ..requirement import absent

ROOT = Path(__file__).parents[2]
APPTAINER = ROOT / "tools" / "apptainer"
# Not in a folder of pytest's: an image that nothing has changed in is good for the next run as well.
KEPT = ROOT / ".apptainer" / "images"
BASE = ROOT / ".apptainer" / "base"
NAMES = ("vad", "client", "asr-embedded", "asr", "sts")
_ARGUMENTS = {
    # No registry of containers and no GitHub here.
    "sts": ["FAIRSEQ=fairseq==0.12.2", "TEXTLESS="],
}
# A tenth of gzip's time, and the file is smaller still.
_COMPRESSION = "--mksquashfs-args '-comp zstd -Xcompression-level 3'"
_TOGETHER = 2
_TOOLS = ("apptainer", "debian-base", "debian-root", "system-packages")
# What lies among the sources and is none.
_MADE = ("__pycache__", "build")


class Images:
    """Builds images in the background, two at a time, and waits for those that are asked for."""

    def __init__(self) -> None:
        self._builders = ThreadPoolExecutor(_TOGETHER, "image")
        self._built: dict[str, Future[Path]] = {}
        self.seconds: dict[str, float] = {}
        """How long each took that had to be built."""

    def begin(self, *names: str) -> None:
        """Have images built that a test will ask for."""
        for name in names:
            if name not in self._built:
                self._built[name] = self._builders.submit(self._build, name)

    def __call__(self, name: str) -> Path:
        """Path of an image; what the build printed fails the test if there is none."""
        self.begin(name)
        return self._built[name].result()

    def close(self) -> None:
        self._builders.shutdown(cancel_futures=True)

    def report(self) -> Iterator[str]:
        """Say how large each image is, and how long it took to build beside another one."""
        for name, built in self._built.items():
            if built.done() and not built.cancelled() and not built.exception():
                how = f"built in {self.seconds[name]:.0f} s" if name in self.seconds else "built before"
                yield f"image {name}: {built.result().stat().st_size / 1e6:.0f} MB, {how}"

    def _build(self, name: str) -> Path:
        KEPT.mkdir(parents=True, exist_ok=True)
        image = KEPT / f"{name}-{digest(name)}.sif"
        with (KEPT / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if image.exists():
                return image
            since = time.monotonic()
            self._run("tools/debian-base", str(BASE))
            self._run(
                *("make", f"image-{name}", f"IMAGES={KEPT}/{name}", "BOOTSTRAP=localimage", f"BASE={BASE}"),
                *_ARGUMENTS.get(name, ()),
                f"APPTAINER={APPTAINER}",
                f"BUILD_OPTIONS={_COMPRESSION}",
            )
            for old in KEPT.glob(f"{name}-{'[0-9a-f]' * 16}.sif"):
                old.unlink()
            (KEPT / name / f"{name}.sif").rename(image)
            self.seconds[name] = time.monotonic() - since
        return image

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-4000:]}"


def digest(name: str) -> str:
    """Digest of what goes into an image: its recipe, the files that it names, and the base."""
    recipe = ROOT / "apptainer" / f"{name.partition('-')[0]}.def"
    named = re.findall(r"^ +(\S+) /", recipe.read_text().partition("%files")[2].partition("%post")[0], re.M)
    inputs = [recipe, ROOT / "Makefile", *(ROOT / "tools" / tool for tool in _TOOLS)]
    inputs += (path for each in named for path in _files(ROOT / each))
    state = hashlib.sha256(f"{name}{_ARGUMENTS.get(name)}{_COMPRESSION}".encode())
    for path in inputs:
        state.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in _MADE and not name.endswith(".egg-info"))
        yield from (Path(folder) / name for name in sorted(names))


def impossible() -> str | None:
    """Say why no image can be built here; an error where it must be possible."""
    programs = ("apt-get", "unshare", "make")
    reason = absent("apptainer", programs=programs)
    if reason is None and os.geteuid() != 0:
        reason = "images are built by root here"
        if "apptainer" in os.environ.get("AMELA_REQUIRE", "").split(","):
            raise pytest.UsageError(f"AMELA_REQUIRE lists apptainer, but {reason}")
    return reason


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Iterator[Images]:
    """Give images by name: ``images("vad")`` is the path of a SIF. Their sizes are printed at the end."""
    if reason := impossible():
        pytest.skip(reason)
    store = Images()
    yield store
    store.close()
    plugins = request.config.pluginmanager
    with plugins.getplugin("capturemanager").global_and_fixture_disabled():
        plugins.getplugin("terminalreporter").ensure_newline()
        print(*store.report(), sep="\n")

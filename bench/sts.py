"""Units and resynthesis: the service against a plain loop, batches against one by one, and what patches cost.

The model has HuBERT base's size, untrained. The plain loop is what one would write without a service: read a
file, call fairseq's own model and its vocoder, one after the other. Both sides are warm, use the same device
and the same clips, and take turns; their best rounds are compared. On a CPU there are a few clips only.
"""

import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from amela.common.v1.audio_pb2 import Audio
from amela.sts.v1 import sts_pb2
from amela_sts import compat, tiny
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.encoder.loading import load_hubert
from amela_sts.engine import EncodeJob, StsEngine, SynthesizeJob
from amela_sts.voices import VoiceIndex
from amela_sts.windows import Window

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.append(str(EXAMPLES))
from sts_server import StsCalls, sts_server  # noqa: E402 - examples are no package

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if CUDA else "cpu")
CLIPS = 256 if CUDA else 4
SECONDS = 10 if CUDA else 3
BATCH = 32 if CUDA else 4
ROUNDS = 3 if CUDA else 2
VOCODER_CHANNELS = 512 if CUDA else 128
CALLERS = 64 if CUDA else 4
RATE = 16_000
LAYER = 12


def write_base(folder: Path) -> Path:
    """Write a model of base's size, with a vocoder that a CPU can run in a while."""
    tiny.write_hubert(folder / "hubert.pt", options={}, batch_norm=True)
    tiny.write_centres(folder / "kmeans.npz", folder / "hubert.pt", LAYER, clusters=200)
    tiny.write_vocoder(folder / "v.pt", folder / "v.json", clusters=200, channels=VOCODER_CHANNELS, width=128)
    card = folder / "base.toml"
    card.write_text(
        f'layer = {LAYER}\ndense = "hubert.pt"\nkmeans = "kmeans.npz"\n'
        'vocoder = "v.pt"\nvocoder_config = "v.json"\n'
    )
    return card


def make_clips(folder: Path) -> list[Path]:
    """Cut clips, each at another place, out of the sentences spoken one after the other."""
    sentences = [soundfile.read(path, dtype="int16")[0] for path in sorted(EXAMPLES.glob("*.flac"))]
    speech, length = np.concatenate(sentences), SECONDS * RATE
    paths = [folder / f"{number:03}.wav" for number in range(CLIPS)]
    for start, path in zip(np.linspace(0, len(speech) - length, CLIPS, dtype=int), paths, strict=True):
        soundfile.write(path, speech[start : start + length], RATE)
    return paths


class PlainLoop:
    """Fairseq's own model and generator, one file at a time."""

    def __init__(self, files: ModelFiles) -> None:
        self._engine = StsEngine(files, DEVICE, trust=True)
        self._hubert = load_hubert(files.dense, trust=True).model.to(DEVICE)
        assert self._engine.vocoder is not None
        self._vocoder = self._engine.vocoder.network

    @torch.inference_mode()
    def units(self, path: Path) -> torch.Tensor:
        """Encode a file."""
        samples, _ = soundfile.read(path, dtype="float32")
        source = torch.from_numpy(samples)[None].to(DEVICE)
        features, _ = self._hubert.extract_features(source, padding_mask=None, mask=False, output_layer=LAYER)
        return self._engine.quantizer.units(features[0])

    @torch.inference_mode()
    def audio(self, path: Path) -> np.ndarray:
        """Resynthesise a file."""
        generator = self._vocoder._generator
        voice = torch.zeros((1, 1), dtype=torch.long, device=DEVICE)
        given = {"style": voice if compat.has_textless() else generator.style(voice).transpose(1, 2)}
        samples: np.ndarray = generator(code=self.units(path)[None], spkr=voice, **given)[0, 0].cpu().numpy()
        return samples


def best(*sides: Callable[[], object]) -> list[float]:
    """Warm the sides up and let them take turns; answer the best seconds of each."""
    for side in sides:
        side()
    rounds: list[list[float]] = [[] for _ in sides]
    for _ in range(ROUNDS):
        for taken, side in zip(rounds, sides, strict=True):
            since = time.perf_counter()
            side()
            if CUDA:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - since)
    return [min(taken) for taken in rounds]


def compare_service(model: Path, clips: list[Path]) -> None:
    """Print the service against the plain loop, and make sure that they say the same."""
    loop = PlainLoop(ModelFiles.find(str(model), model.parent))
    with sts_server("--model", str(model), "--trust") as server, ThreadPoolExecutor(CALLERS) as callers:

        def encode(path: Path) -> list[int]:
            request = sts_pb2.EncodeRequest(audio=Audio(path=str(path)))
            return _units(server, request)

        def resynthesize(path: Path) -> int:
            request = sts_pb2.ResynthesizeRequest(audio=Audio(path=str(path)))
            answer = server.stub.Resynthesize(request, metadata=server.metadata)
            return sum(len(part.samples) for part in answer)

        served = list(callers.map(encode, clips))
        plain = [loop.units(path).tolist() for path in clips]
        differing = sum(
            a != b for one, other in zip(served, plain, strict=True) for a, b in zip(one, other, strict=True)
        )
        print(f"units that differ between service and plain loop: {differing} of {sum(map(len, plain))}")
        for name, theirs, ours in (
            ("encode", loop.units, encode),
            ("resynthesize", loop.audio, resynthesize),
        ):
            bare, through = best(
                lambda work=theirs: [work(path) for path in clips],  # type: ignore[misc]
                lambda work=ours: list(callers.map(work, clips)),  # type: ignore[misc]
            )
            _print(f"{name}, plain loop", bare)
            _print(f"{name}, service", through)
            print(f"ratio sts_{name} {bare / through:.2f}")


def _units(server: StsCalls, request: sts_pb2.EncodeRequest) -> list[int]:
    answer = server.stub.Encode(request, metadata=server.metadata)
    return [unit for part in answer for unit in part.units]


def compare_batches(model: Path, clips: list[Path]) -> None:
    """Print batches against one by one, in the engine alone."""
    engine = StsEngine(ModelFiles.find(str(model), model.parent), DEVICE, trust=True)
    clipped = [soundfile.read(path, dtype="float32")[0] for path in clips]
    frames = engine.encoder.convolutions.frames(SECONDS * RATE)
    jobs = [EncodeJob(Window(samples, 0, frames, whole=True)) for samples in clipped]
    spoken = [
        SynthesizeJob(Window(encoded.units, 0, frames, whole=True), VoiceIndex())
        for encoded in engine.encode(jobs[:BATCH])
    ]
    for name, compute, items in (("encode", engine.encode, jobs), ("synthesize", engine.synthesize, spoken)):
        single, together = best(
            lambda c=compute, i=items: [c([item]) for item in i],  # type: ignore[misc]
            lambda c=compute, i=items: [  # type: ignore[misc]
                c(i[at : at + BATCH]) for at in range(0, len(i), BATCH)
            ],
        )
        _print(f"{name}, one by one", single, len(items))
        _print(f"{name}, batches of {BATCH}", together, len(items))
        print(f"ratio sts_batch_{name} {single / together:.2f}")


def cost_of_patches(model: Path) -> None:
    """Print what accommodations take of an import and of a load, as a profiler sees it in a new process."""
    sys.stdout.flush()
    subprocess.run([sys.executable, __file__, str(model.parent / "hubert.pt")], check=True)


def profile_patches(hubert: Path) -> None:
    """Profile this process's first import of fairseq and first load."""
    for name, work in (
        ("import", compat.import_legacy),
        ("load", lambda: load_hubert(hubert, trust=True)),
    ):
        profile = cProfile.Profile()
        since = time.perf_counter()
        profile.runcall(work)
        elapsed = time.perf_counter() - since
        own: dict[str, float] = {}
        for (file, _, _), (_, _, seconds, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if "amela_sts/compat" in file or file.endswith("pos_conv.py"):
                own[Path(file).stem] = own.get(Path(file).stem, 0.0) + seconds
        for patch, seconds in sorted(own.items()):
            print(f"{name}: {patch:<20} {1000 * seconds:7.2f} ms")
        cost = sum(own.values())
        print(f"{name}: {1000 * elapsed:.0f} ms, of it patches {1000 * cost:.1f} ms")
        print(f"ratio sts_{name}_with_patches {elapsed / (elapsed - cost):.3f}")


def _print(what: str, seconds: float, clips: int = CLIPS) -> None:
    print(f"{what + ':':<32} {seconds:.2f} s, {clips * SECONDS / seconds:.1f} × real time")


def main() -> int:
    """Print the figures and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_base(Path(folder))
        clips = make_clips(Path(folder))
        print(f"{CLIPS} clips of {SECONDS} s, HuBERT base, {DEVICE}")
        cost_of_patches(model)
        compare_batches(model, clips)
        compare_service(model, clips)
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        profile_patches(Path(sys.argv[1]))
        sys.exit(0)
    sys.exit(main())

"""ASR through client and server against NeMo's own best offline batch loop, on the same 500 clips.

The model is a FastConformer with CTC of real size and random weights, which computes the same as a trained
one; ``--model`` takes another. The offline side is what one would write without a server: clips sorted by
length, `transcribe` with the batch size that turns out best. The other side is `amela-asr` as it comes,
called through the client's scheduler. Both are warm, they take turns, and their best rounds are compared.

It needs the environment of ``apptainer/asr.lock``, and for the last ratio a Triton, from its PyPI wheel in
the folder ``--triton``.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from amela_asr.engine import Options
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.quiet import quiet_import
from amela_asr.engines.recognizer import SAMPLE_RATE, Utterance
from amela_client.backlog import Task
from amela_client.client import AmelaClient
from amela_client.requests import transcribe_request
from amela_common.audio import Clip

ROOT = Path(__file__).parent.parent
SENTENCES = ROOT / "examples"
BATCH_SIZES = (1, 4, 16, 64)
LOAD = 0.5
START_SECONDS = 180
# So many tell which batch size is best.
TRIED = 100


@dataclass(frozen=True)
class Recorded:
    """A clip on disk."""

    path: Path
    seconds: float


def make_clips(folder: Path, count: int) -> list[Recorded]:
    """Cut clips of 1 to 6 s, most of them short, out of read speech without long pauses.

    With pauses the server would win by what it spares the model: it sends it speech only.
    """
    rng = np.random.default_rng(0)
    sentences = [soundfile.read(path, dtype="float32")[0] for path in sorted(SENTENCES.glob("*.flac"))]
    speech = np.concatenate(sentences)
    clips = []
    for number in range(count):
        length = int(SAMPLE_RATE * min(6.0, 1.0 + rng.exponential(1.0)))
        start = rng.integers(len(speech) - length)
        path = folder / f"{number:03}.flac"
        soundfile.write(path, speech[start : start + length], SAMPLE_RATE)
        clips.append(Recorded(path, length / SAMPLE_RATE))
    return clips


def make_model(path: Path, layers: int, width: int) -> None:
    """Save a FastConformer CTC model with random weights."""
    with quiet_import():
        from nemo.collections.asr.models import EncDecCTCModel  # noqa: PLC0415
        from omegaconf import OmegaConf  # noqa: PLC0415
    torch.manual_seed(0)
    letters = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
    modules = "nemo.collections.asr.modules"
    config = {
        "sample_rate": SAMPLE_RATE,
        "labels": letters,
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": SAMPLE_RATE,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "features": 80,
            "n_fft": 512,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": 80,
            "n_layers": layers,
            "d_model": width,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 256,
            "n_heads": 8,
            "conv_kernel_size": 9,
            "self_attention_model": "rel_pos",
            "xscaling": False,
        },
        "decoder": {
            "_target_": f"{modules}.ConvASRDecoder",
            "feat_in": None,
            "num_classes": len(letters),
            "vocabulary": letters,
        },
        "decoding": {"strategy": "greedy_batch"},
        "optim": {"name": "adamw", "lr": 1e-3},
    }
    model = EncDecCTCModel(OmegaConf.create(config))
    print(f"model: {sum(weight.numel() for weight in model.parameters()) / 1e6:.0f} M parameters")
    model.save_to(str(path))


def offline_loop(path: Path, device: str) -> Any:
    """Load the model as NeMo's documentation does."""
    with quiet_import():
        from nemo.collections.asr.models import ASRModel  # noqa: PLC0415
    return ASRModel.restore_from(str(path), map_location=device).eval()


def run_offline(model: Any, clips: list[Recorded], batch_size: int) -> float:
    """Answer the seconds that NeMo takes."""
    ordered = [str(clip.path) for clip in sorted(clips, key=lambda clip: clip.seconds)]
    since = time.perf_counter()
    texts = model.transcribe(ordered, batch_size=batch_size, verbose=False)
    assert len(texts) == len(clips)
    return time.perf_counter() - since


def run_in_process(recognizer: Any, clips: list[Recorded], batch_size: int) -> float:
    """Answer the seconds that the engine takes for batches of one size."""
    ordered = sorted(clips, key=lambda clip: clip.seconds)
    utterances = [
        Utterance(Clip(soundfile.read(clip.path, dtype="float32")[0], SAMPLE_RATE), Options())
        for clip in ordered
    ]
    since = time.perf_counter()
    for start in range(0, len(utterances), batch_size):
        recognizer.recognize(utterances[start : start + batch_size])
    return time.perf_counter() - since


async def run_served(client: AmelaClient, clips: list[Recorded]) -> float:
    """Answer the seconds that client and server take."""
    tasks: Iterator[Task] = (
        Task(key, transcribe_request(clip.path), clip.seconds) for key, clip in enumerate(clips)
    )
    since = time.perf_counter()
    outcomes = [outcome async for outcome in client.transcribe_all(tasks)]
    seconds = time.perf_counter() - since
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert len(outcomes) == len(clips)
    assert not failed, failed[0]
    return seconds


async def latencies(client: AmelaClient, clips: list[Recorded], rate: float) -> list[float]:
    """Call so many times a second, at random moments, and answer how long each call takes."""
    rng = np.random.default_rng(1)

    async def call(clip: Recorded) -> float:
        since = time.perf_counter()
        await client.transcribe(clip.path)
        return time.perf_counter() - since

    calls = []
    for clip in clips:
        calls.append(asyncio.create_task(call(clip)))
        await asyncio.sleep(rng.exponential(1 / rate))
    return await asyncio.gather(*calls)


@asynccontextmanager
async def served(folder: Path, *flags: str) -> AsyncIterator[AmelaClient]:
    """Start `amela-asr` and connect to it."""
    registry = folder / f"registry-{time.monotonic_ns()}"
    program = str(Path(sys.executable).parent / "amela-asr")
    command = [program, "--registry", str(registry), "--host", "127.0.0.1", "--audio-root", str(folder)]
    with started([*command, "--log-level", "WARNING", *flags]) as process:
        await until(lambda: bool(list(registry.glob("*.json"))), process)
        async with AmelaClient(registry) as client:
            yield client


@asynccontextmanager
async def triton(wheel: Path, model: Path, device: str) -> AsyncIterator[str]:
    """Start Triton from its wheel, and answer where it is."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    names = ("grpc", "http", "metrics")
    flags = [f"--{name}-port={port}" for name, port in zip(names, ports, strict=True)]
    flags += [f"--{name}-address=127.0.0.1" for name in names]
    start = str(ROOT / "services/asr/triton/start")
    environment = {"AMELA_MODEL": str(model), "AMELA_DEVICE": device}
    command = [start, "wheel", str(wheel), sys.executable, "--log-info=false", *flags]
    with started(command, **environment) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ports[0])) == 0

        await until(listens, process)
        yield f"127.0.0.1:{ports[0]}"


@contextmanager
def started(command: list[str], **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program for as long as the block lasts."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait for a program to be ready."""
    async with asyncio.timeout(START_SECONDS):
        while not condition():
            if process.poll() is not None:
                raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")
            await asyncio.sleep(0.1)


async def best_of(rounds: int, *sides: Callable[[], Awaitable[float]]) -> list[float]:
    """Let the sides take turns, after a round to warm up; answer the best seconds of each."""
    for side in sides:
        await side()
    taken = [[await side() for side in sides] for _ in range(rounds)]
    return [min(seconds) for seconds in zip(*taken, strict=True)]


async def measure(model: Path, clips: list[Recorded], folder: Path, arguments: argparse.Namespace) -> None:
    """Print all figures and ratios."""
    audio = sum(clip.seconds for clip in clips)

    def show(name: str, seconds: float) -> None:
        print(f"{name:28}{seconds:8.2f} s{len(clips) / seconds:8.1f} clips/s, RTFx {audio / seconds:.0f}")

    device = arguments.device
    offline = offline_loop(model, device)
    trials = {size: run_offline(offline, clips[:TRIED], size) for size in BATCH_SIZES}
    best_size = min(trials, key=lambda size: trials[size])

    def run_best() -> Awaitable[float]:
        return asyncio.to_thread(run_offline, offline, clips, best_size)

    async with served(folder, "--model", str(model), "--device", device) as client:
        loop, service = await best_of(arguments.rounds, run_best, lambda: run_served(client, clips))
        show(f"offline loop, batches of {best_size}", loop)
        show("client and server", service)
        print(f"ratio asr {loop / service:.2f}")
        taken = sorted(await latencies(client, clips, LOAD * len(clips) / service))
        p50, p99 = statistics.median(taken), taken[int(0.99 * len(taken))]
        print(f"latency at {LOAD:.0%} load: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")

        recognizer = load_recognizer(str(model), offline=True, device=device)
        single, batched = await best_of(
            1,
            lambda: asyncio.to_thread(run_in_process, recognizer, clips, 1),
            lambda: asyncio.to_thread(run_in_process, recognizer, clips, best_size),
        )
        show("engine, one by one", single)
        show(f"engine, batches of {best_size}", batched)
        print(f"ratio asr_batched {single / batched:.2f}")

        if arguments.triton is None:
            print("no Triton: give --triton FOLDER for its ratio")
            return
        async with (
            triton(arguments.triton, model, device) as url,
            served(folder, "--triton-url", url) as through_triton,
        ):
            in_process, by_triton = await best_of(
                arguments.rounds,
                lambda: run_served(client, clips),
                lambda: run_served(through_triton, clips),
            )
        show("server, engine in process", in_process)
        show("server, engine in Triton", by_triton)
        print(f"ratio asr_triton {in_process / by_triton:.2f}")


def main() -> int:
    """Print the figures and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", type=Path, help="a .nemo file instead of random weights")
    parser.add_argument("--layers", type=int, default=16, help="of the random model")
    parser.add_argument("--width", type=int, default=256, help="of the random model")
    wheel = ROOT / ".venv-triton"
    parser.add_argument("--triton", type=Path, default=wheel if wheel.is_dir() else None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, arguments.clips)
        lengths = sorted(clip.seconds for clip in clips)
        print(
            json.dumps(
                {"clips": len(clips), "audio_s": round(sum(lengths)), "median_s": lengths[len(clips) // 2]}
            )
        )
        model = arguments.model or folder / "random.nemo"
        if arguments.model is None:
            make_model(model, arguments.layers, arguments.width)
        asyncio.run(measure(model, clips, folder, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""VAD through client and server against the bare TEN-VAD loop on all cores.

Both sides read the same 200 WAVs of 10 s, made of the example sentences. The bare side is what one would
write without a server: a process for each core, each with a `ten_vad.TenVad` of its own that is given
frame after frame. The other side is `amela-vad` as it comes, TLS and token on, called through the
client's scheduler. Both are warm, they take turns, and their best rounds are compared.
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import soundfile
import ten_vad
from amela_client.backlog import Task
from amela_client.client import AmelaClient
from amela_client.local import local_servers
from amela_client.requests import detect_request
from amela_client.services import VAD

EXAMPLES = Path(__file__).parent.parent / "examples"
RATE = 16_000
HOP = 256
CLIPS = 200
SECONDS = 10
ROUNDS = 4

_detector: ten_vad.TenVad


def make_clips(folder: Path) -> list[Path]:
    """Cut clips, each at another place, out of the sentences spoken round and round."""
    sentences = [soundfile.read(path, dtype="int16")[0] for path in sorted(EXAMPLES.glob("*.flac"))]
    speech = np.concatenate(sentences * 2)
    paths = [folder / f"{number:03}.wav" for number in range(CLIPS)]
    length = SECONDS * RATE
    for start, path in zip(np.linspace(0, len(speech) - length, CLIPS, dtype=int), paths, strict=True):
        soundfile.write(path, speech[start : start + length], RATE)
    return paths


def make_detector() -> None:
    """Set up a process of the bare side."""
    global _detector  # noqa: PLW0603
    _detector = ten_vad.TenVad(HOP)


def detect(path: Path) -> int:
    """Count the frames of speech in a clip, as simply as it can be done."""
    samples, _ = soundfile.read(path, dtype="int16")
    return sum(_detector.process(samples[at : at + HOP])[1] for at in range(0, len(samples) - HOP + 1, HOP))


def run_bare(pool: Pool, clips: list[Path]) -> float:
    """Answer the seconds that the bare loop takes."""
    since = time.perf_counter()
    counts = list(pool.imap_unordered(detect, clips))
    seconds = time.perf_counter() - since
    assert len(counts) == CLIPS
    assert all(counts)
    return seconds


async def run_served(client: AmelaClient, clips: list[Path]) -> float:
    """Answer the seconds that client and server take."""
    tasks: Iterator[Task] = (
        Task(key, detect_request(path), float(SECONDS)) for key, path in enumerate(clips)
    )
    since = time.perf_counter()
    outcomes = [outcome async for outcome in client.detect_all(tasks)]
    seconds = time.perf_counter() - since
    assert len(outcomes) == CLIPS
    assert all(outcome.response is not None and outcome.response.segments for outcome in outcomes)
    return seconds


async def measure(pool: Pool, clips: list[Path]) -> tuple[float, float]:
    """Let the sides take turns; answer the best seconds of each."""
    bare, served = [], []
    async with local_servers([VAD]) as registry, AmelaClient(registry) as client:
        await run_served(client, clips)
        for _ in range(ROUNDS):
            bare.append(await asyncio.to_thread(run_bare, pool, clips))
            served.append(await run_served(client, clips))
    return min(bare), min(served)


def main() -> int:
    """Print the figures and the ratio."""
    cores = len(os.sched_getaffinity(0))
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, processes.Pool(cores, make_detector) as pool:
        clips = make_clips(Path(folder))
        run_bare(pool, clips)
        bare, served = asyncio.run(measure(pool, clips))
    print(f"{CLIPS} clips of {SECONDS} s on {cores} cores")
    print(f"bare TEN-VAD loop:  {bare:.2f} s, {CLIPS / bare:.1f} clips/s")
    print(f"client and server:  {served:.2f} s, {CLIPS / served:.1f} clips/s")
    print(f"ratio vad {bare / served:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

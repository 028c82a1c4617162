"""A recording of 16 hours through `amela-vad`: memory, and the same answer as for its hours one by one.

TEN-VAD forgets its recurrent state each 30 s of a recording. Two passes that forget at the same moments
agree bit for bit from then on; so each hour is asked for with the 30 s before it, which are left out of
the comparison. Another length, in hours, may be given as the argument.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from amela_client.client import AmelaClient
from amela_client.local import local_servers
from amela_client.results import VoiceActivity
from amela_client.services import VAD
from amela_common.voice.detector import HOP, SAMPLE_RATE
from amela_common.voice.segmentation import SegmentationOptions, segment
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples"
HOUR = 3600
RUN_IN = 30
LIMIT_MB = 400


def make_recording(path: Path, hours: int) -> None:
    """Write a WAV of sentences with up to 20 s of silence after each."""
    rng = np.random.default_rng(0)
    sentences = [soundfile.read(name, dtype="int16")[0] for name in sorted(EXAMPLES.glob("*.flac"))]
    left = hours * HOUR * SAMPLE_RATE
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        while left:
            pause = np.zeros(int(rng.uniform(0.1, 20) * SAMPLE_RATE), np.int16)
            samples = np.concatenate([sentences[rng.integers(len(sentences))], pause])[:left]
            file.write(samples)
            left -= len(samples)


def probabilities(answer: VoiceActivity) -> NDArray[np.float32]:
    """Take the probabilities out of an answer."""
    assert answer.frame_probabilities is not None
    return np.array(answer.frame_probabilities.values, np.float32)


async def detect_hours(client: AmelaClient, path: Path, hours: int) -> NDArray[np.float32]:
    """Ask for one hour after the other and put their probabilities together."""
    parts = []
    for hour in range(hours):
        run_in = RUN_IN if hour else 0
        answer = await client.detect(
            path, start=hour * HOUR - run_in, duration=HOUR + run_in, frame_probabilities=True
        )
        parts.append(probabilities(answer)[round(run_in / HOP) :])
    return np.concatenate(parts)


def peak_megabytes(registry: Path) -> dict[str, int]:
    """Read the peak memory of the server and of its workers."""
    [registration] = registry.glob("*.json")
    server = json.loads(registration.read_text())["pid"]
    workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    names = {"server": server} | {f"worker {number}": pid for number, pid in enumerate(workers, 1)}
    return {name: _peak(pid) for name, pid in names.items()}


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


async def measure(path: Path, hours: int) -> bool:
    """Ask for the whole and for its hours side by side; print and judge."""
    async with local_servers([VAD]) as registry, AmelaClient(registry) as client:
        since = time.perf_counter()
        whole, by_hours = await asyncio.gather(
            client.detect(path, frame_probabilities=True), detect_hours(client, path, hours)
        )
        seconds = time.perf_counter() - since
        peaks = peak_megabytes(registry)
    print(f"{hours} h, once whole and once by the hour, in {seconds:.0f} s")
    print(f"{len(whole.segments)} segments, speech ratio {whole.statistics.speech_ratio:.3f}")
    for name, peak in peaks.items():
        print(f"peak memory of {name}: {peak} MB")

    options = SegmentationOptions()
    equal = np.array_equal(probabilities(whole), by_hours)
    same = [tuple(run) for run in whole.segments] == [
        (round(run.start, 9), round(run.end, 9)) for run in segment(by_hours, hours * HOUR, options)
    ]
    print(f"equal probabilities: {equal}, equal segments: {same}")
    return equal and same and max(peaks.values()) < LIMIT_MB


def main() -> int:
    """Exit with 0 if the memory kept to the limit and the answers agree."""
    hours = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = Path(folder) / "daylong.wav"
        make_recording(path, hours)
        return 0 if asyncio.run(measure(path, hours)) else 1


if __name__ == "__main__":
    sys.exit(main())

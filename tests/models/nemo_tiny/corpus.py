"""Commands spoken by espeak-ng: few words, some voices to learn from and others to be tested with."""

import io
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "stop", "go", "left", "right", "start", "play"),
)
LETTERS = (" ", *"abcdefghijklmnopqrstuvwxyz", "'")


class Utterance(NamedTuple):
    """What was said, and how it sounds: float32[n] at 16 kHz."""

    text: str
    samples: NDArray[np.float32]


class Speakers(NamedTuple):
    """Who says it, in espeak-ng's terms: voices, words per minute, pitches from 0 to 99."""

    voices: tuple[str, ...]
    speeds: tuple[int, ...]
    pitches: tuple[int, ...]


KNOWN = Speakers(
    ("en-us", "en-gb", "en-us+f2", "en-us+m3", "en-gb+f4", "en-us+m7", "en-gb-scotland+m1"),
    (130, 150, 165, 185, 200),
    (35, 45, 50, 60),
)
UNSEEN = Speakers(("en-us+f5", "en-gb+m2", "en-us+m4"), (140, 175, 190), (40, 55))


def utterances(count: int, speakers: Speakers, seed: int) -> list[Utterance]:
    """Have phrases of one to five words said; the first ones are the words alone."""
    rng = random.Random(seed)
    texts = list(WORDS[:count])
    texts += [
        " ".join(rng.choices(WORDS, k=rng.choice((1, 2, 3, 3, 4, 5)))) for _ in range(count - len(texts))
    ]
    ways = [
        (
            rng.choice(speakers.voices),
            rng.choice(speakers.speeds),
            rng.choice(speakers.pitches),
            rng.choice((0, 1, 2, 4)),
        )
        for _ in texts
    ]
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda text, way: Utterance(text, _say(text, *way)), texts, ways))


def _say(text: str, voice: str, speed: int, pitch: int, gap: int) -> NDArray[np.float32]:
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-g", str(gap), "--stdout", text]
    spoken = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    # A stream's header cannot know the length: soundfile reads up to the end all the same.
    samples, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), np.float32)

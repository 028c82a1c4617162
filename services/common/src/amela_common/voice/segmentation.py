"""From the detector's probabilities to segments, and what can be said about segments.

Pure functions over whole recordings; `amela_common.voice.live` gives the same
segments while the audio still comes in.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amela_common.voice.detector import HOP

# Times of segments are sums of hops in floating point: far coarser than its errors, far finer than a sample.
TIME_TOLERANCE = 1e-6

LONG_AUDIO = 60.0
SPLIT_INTERVAL = 30.0
SPLIT_WINDOW = 10.0
SPLIT_PAUSE = 0.3


class Segment(NamedTuple):
    """A stretch of a recording.

    Attributes
    ----------
    start, end
        Seconds from the start of the recording.
    """

    start: float
    end: float

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class SegmentationOptions:
    """How probabilities become segments; the steps are taken in this order.

    Attributes
    ----------
    threshold
        A frame is speech at or above this probability, 0 to 1.
    merge_gap
        Non-speech between two runs of speech is bridged when it is shorter than this, in seconds.
    min_speech
        Segments shorter than this are dropped, in seconds.
    padding
        Added to both sides of a segment, in seconds. Neighbours that would then overlap
        meet in the middle of their gap.
    """

    threshold: float = 0.5
    merge_gap: float = 0.0
    min_speech: float = 0.0
    padding: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """Runs of speech and of non-speech, in seconds; zero where there are none.

    Attributes
    ----------
    speech_ratio
        Speech time by whole time, 0 to 1.
    """

    max_speech: float
    min_speech: float
    mean_speech: float
    max_nonspeech: float
    min_nonspeech: float
    mean_nonspeech: float
    speech_ratio: float


def segment(
    probabilities: NDArray[np.float32], duration: float, options: SegmentationOptions
) -> list[Segment]:
    """Find the segments of speech.

    Parameters
    ----------
    probabilities
        Shape (frames,); frame `k` covers ``[k * HOP, (k + 1) * HOP)``.
    duration
        Length of the recording in seconds, within the last frame.
    options
        How to decide.
    """
    # Compared at the probabilities' own precision: float32(0.7) is below 0.7.
    speech = probabilities >= np.float32(options.threshold)
    edges = np.flatnonzero(np.diff(speech, prepend=False, append=False))
    if not edges.size:
        return []
    starts = edges[::2] * HOP
    ends = np.minimum(edges[1::2] * HOP, duration)

    apart = starts[1:] - ends[:-1] >= options.merge_gap - TIME_TOLERANCE
    starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]

    kept = ends - starts >= options.min_speech - TIME_TOLERANCE
    starts, ends = starts[kept], ends[kept]

    reach = np.minimum(options.padding, (starts[1:] - ends[:-1]) / 2)
    starts = starts - np.append(np.minimum(options.padding, starts[:1]), reach)
    ends = ends + np.append(reach, np.minimum(options.padding, duration - ends[-1:]))
    return [Segment(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def nonspeech(segments: list[Segment], duration: float) -> list[Segment]:
    """Return the stretches of a recording of `duration` seconds that lie in no segment."""
    starts = [0.0, *(run.end for run in segments)]
    ends = [*(run.start for run in segments), duration]
    return [Segment(start, end) for start, end in zip(starts, ends, strict=True) if end > start]


def split_points(segments: list[Segment], duration: float) -> list[float]:
    """Say where a recording can be cut into parts of about 30 s.

    From each 30 s mark on, the middle of the first non-speech run of at least 0.3 s within the
    next 10 s; what lies outside these 10 s does not count, so that a long silence is cut as well.

    Returns
    -------
    list of float
        Seconds, ascending. Empty for recordings below 60 s.
    """
    if not is_long(duration):
        return []
    points = []
    pauses = iter(nonspeech(segments, duration))
    pause = next(pauses, None)
    for mark in np.arange(SPLIT_INTERVAL, duration, SPLIT_INTERVAL).tolist():
        while pause is not None and pause.start < mark + SPLIT_WINDOW:
            start, end = max(pause.start, mark), min(pause.end, mark + SPLIT_WINDOW)
            if end - start >= SPLIT_PAUSE - TIME_TOLERANCE:
                points.append((start + end) / 2)
                break
            if pause.end > end:
                break
            pause = next(pauses, None)
    return points


def statistics(segments: list[Segment], duration: float) -> Statistics:
    """Summarise the runs of speech and of non-speech in a recording of `duration` seconds."""
    speech = [run.duration for run in segments]
    pauses = [run.duration for run in nonspeech(segments, duration)]
    return Statistics(
        max_speech=max(speech, default=0.0),
        min_speech=min(speech, default=0.0),
        mean_speech=sum(speech) / len(speech) if speech else 0.0,
        max_nonspeech=max(pauses, default=0.0),
        min_nonspeech=min(pauses, default=0.0),
        mean_nonspeech=sum(pauses) / len(pauses) if pauses else 0.0,
        speech_ratio=min(sum(speech) / duration, 1.0) if duration else 0.0,
    )


def is_no_speech(found: Statistics) -> bool:
    """Tell whether a recording holds next to no speech: a ratio below 0.01, or no run of 0.3 s."""
    return found.speech_ratio < 0.01 or found.max_speech < 0.3 - TIME_TOLERANCE


def is_long(duration: float) -> bool:
    """Tell whether a recording lasts long enough to be worth cutting: 60 s."""
    return duration >= LONG_AUDIO

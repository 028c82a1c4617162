"""Recordings are cut as the encoder wants them, long ones too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from amela_common.audio import AudioLimits, AudioSource
from amela_common.errors import RequestError
from amela_common.pool import CHECKPOINT
from amela_sts.encoder.layers import parse
from amela_sts.front import AudioShape, Cut, Cutter, End
from amela_sts.windows import Window

_CONVOLUTIONS = parse("[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2")


def _items(path: Path, *, normalize: bool = False, only_one: bool = False) -> list[Any]:
    cutter = Cutter(AudioLimits(roots=("/",)), AudioShape(16_000, _CONVOLUTIONS, normalize))
    request = Cut(AudioSource(path=str(path)), only_one)
    return [item for item in cutter(request) if item is not CHECKPOINT]


def _cut(path: Path, *, normalize: bool = False) -> tuple[list[Window], End]:
    *windows, end = _items(path, normalize=normalize)
    return windows, end


def _write(path: Path, seconds: float, offset: float = 0.0) -> np.ndarray:
    samples = np.random.default_rng(0).normal(offset, 0.1, int(16_000 * seconds)).astype(np.float32)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return samples


def test_a_hundred_seconds_are_one_window(tmp_path: Path) -> None:
    samples = _write(tmp_path / "clip.wav", 100)
    [window], end = _cut(tmp_path / "clip.wav", normalize=True)
    assert (window.whole, window.skip, window.keep) == (True, 0, 4999)
    # A whole recording is left as it is: the encoder normalises it.
    assert np.array_equal(window.items, samples)
    assert end.seconds == 100


def test_a_longer_recording_has_all_its_frames_in_the_middles(tmp_path: Path) -> None:
    _write(tmp_path / "clip.wav", 250)
    windows, end = _cut(tmp_path / "clip.wav")
    assert [window.keep for window in windows] == [4000, 4000, 4000, 499]
    assert [window.skip for window in windows] == [0, 500, 500, 500]
    assert sum(window.keep for window in windows) == _CONVOLUTIONS.frames(250 * 16_000)
    assert all(len(window.items) <= 100 * 16_000 + 80 for window in windows)
    assert end.seconds == 250


def test_only_a_recording_of_one_window_is_cut_when_that_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "clip.wav", 100)
    [window, end] = _items(tmp_path / "clip.wav", only_one=True)
    assert (window.keep, end.seconds) == (4999, 100)
    _write(tmp_path / "clip.wav", 101)
    assert _items(tmp_path / "clip.wav", only_one=True) == [None]


def test_parts_of_a_long_recording_are_normalised_as_the_whole_would_be(tmp_path: Path) -> None:
    samples = _write(tmp_path / "clip.wav", 120, offset=0.2)
    windows, _ = _cut(tmp_path / "clip.wav", normalize=True)
    whole = torch.nn.functional.layer_norm(torch.from_numpy(samples), samples.shape).numpy()
    assert len(windows) == 2
    first = windows[0].items
    assert np.abs(first - whole[: len(first)]).max() < 1e-5
    second = windows[1].items
    assert np.abs(second - whole[70 * 16_000 :][: len(second)]).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 160, 399])
def test_what_is_shorter_than_a_unit_is_refused(samples: int, tmp_path: Path) -> None:
    _write(tmp_path / "click.wav", samples / 16_000)
    with pytest.raises(RequestError, match=f"{samples} samples at 16000 Hz; one unit takes 400") as caught:
        _cut(tmp_path / "click.wav")
    assert caught.value.reason == "AUDIO_TOO_SHORT"

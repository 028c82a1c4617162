"""A batch gives what each item alone would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from amela_sts import compat
from amela_sts.encoder.hubert import HubertEncoder
from amela_sts.encoder.loading import load_hubert
from amela_sts.encoder.quantizer import Quantizer
from amela_sts.engine import StsEngine
from amela_sts.tiny import TINY, write_hubert
from amela_sts.vocoder.codehifigan import Utterance

CPU = torch.device("cpu")
# fairseq of 2021 does not.
_KNOWS_CONFORMERS = pytest.mark.skipif(
    not hasattr(compat.legacy("fairseq.models.hubert").HubertConfig, "layer_type"),
    reason="this fairseq has no conformers",
)


def _clips(count: int, longest: int, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(400, longest, count)
    return [torch.from_numpy(rng.normal(0, 0.1, n).astype(np.float32)) for n in lengths]


@pytest.mark.parametrize(
    ("options", "normalize", "batch_norm"),
    [
        (TINY, False, False),
        (TINY, True, False),
        (TINY, False, True),
        (TINY | {"extractor_mode": "layer_norm"}, True, False),
        (TINY | {"layer_norm_first": True}, False, True),
        pytest.param(TINY | {"layer_type": "conformer"}, True, False, marks=_KNOWS_CONFORMERS),
    ],
)
def test_features_of_a_batch_are_those_of_each_recording_alone(
    options: dict[str, object], normalize: bool, batch_norm: bool, tmp_path: Path
) -> None:
    write_hubert(tmp_path / "hubert.pt", options=options, normalize=normalize, batch_norm=batch_norm)
    encoder = HubertEncoder(load_hubert(tmp_path / "hubert.pt", trust=True), 2, CPU)
    clips = _clips(12, 24_000)
    for clip, features in zip(clips, encoder.features(clips), strict=True):
        [alone] = encoder.features([clip])
        assert features.shape == alone.shape == (encoder.convolutions.frames(len(clip)), 32)
        assert (features - alone).abs().max() < 1e-5


def test_features_of_one_recording_are_fairseqs_own(tmp_path: Path) -> None:
    write_hubert(tmp_path / "hubert.pt")
    untouched = load_hubert(tmp_path / "hubert.pt", trust=True).model
    encoder = HubertEncoder(load_hubert(tmp_path / "hubert.pt", trust=True), 2, CPU)
    for clip in _clips(4, 24_000):
        with torch.inference_mode():
            theirs = untouched.extract_features(clip[None], padding_mask=None, mask=False, output_layer=2)[0][
                0
            ]
        assert torch.equal(encoder.features([clip])[0], theirs)


def test_fairseqs_own_padding_changes_units(engine: StsEngine, tiny: Path) -> None:
    untouched = load_hubert(tiny / "hubert.pt", trust=True).model
    clips = [torch.nn.functional.pad(clip, (0, 24_000 - len(clip))) for clip in _clips(8, 12_000)]
    padding = torch.stack([torch.arange(24_000) >= 12_000 for _ in clips])
    with torch.inference_mode():
        padded, _ = untouched.extract_features(torch.stack(clips), padding_mask=padding, output_layer=2)
    alone = engine.encoder.features([clip[:12_000] for clip in clips])
    differing = [
        (engine.quantizer.units(theirs[: len(ours)]) != engine.quantizer.units(ours)).sum().item()
        for theirs, ours in zip(padded, alone, strict=True)
    ]
    assert sum(differing) > 0


def test_units_and_samples_of_200_clips_are_the_same_in_batches_and_alone(engine: StsEngine) -> None:
    assert engine.vocoder is not None
    clips = _clips(200, 16_000)
    differing, frames, distance = 0, 0, 0.0
    for start in range(0, len(clips), 20):
        group = clips[start : start + 20]
        units = [engine.quantizer.units(features) for features in engine.encoder.features(group)]
        spoken = engine.vocoder.network.synthesize(
            [Utterance(own, speaker=at % 4, style=at % 3) for at, own in enumerate(units)]
        )
        for at, (clip, own, samples) in enumerate(zip(group, units, spoken, strict=True)):
            alone = engine.quantizer.units(engine.encoder.features([clip])[0])
            differing += int((own != alone).sum())
            frames += len(own)
            [voice] = engine.vocoder.network.synthesize([Utterance(alone, speaker=at % 4, style=at % 3)])
            assert len(samples) == len(own) * engine.vocoder.config.hop
            distance = max(distance, float((samples - voice).abs().max()))
    assert frames > 4000
    assert differing == 0
    assert distance < 1e-5


def test_the_nearest_centre_is_that_of_exact_arithmetic() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 16)).astype(np.float32)
    centres[31] = centres[7]
    features = rng.normal(size=(500, 16)).astype(np.float32)
    # Far from the origin float32 would lose the differences that decide.
    for shift in (0.0, 1000.0):
        moved, near = (features + np.float32(shift)), (centres + np.float32(shift))
        exact = ((moved[:, None].astype(np.float64) - near[None].astype(np.float64)) ** 2).sum(-1)
        units = Quantizer(near, CPU).units(torch.from_numpy(moved)).numpy()
        assert units.tolist() == exact.argmin(1).tolist()
        assert 31 not in units


def test_units_are_those_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 16)).astype(np.float32)
    features = rng.normal(size=(2000, 16)).astype(np.float32)
    model = cluster.KMeans(50, init=centres, n_init=1, max_iter=1).fit(features)
    ours = Quantizer(model.cluster_centers_.astype(np.float32), CPU).units(torch.from_numpy(features))
    assert ours.tolist() == model.predict(features).tolist()

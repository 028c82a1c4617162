"""The service's units and audio are textless's own, for the same files."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from amela_sts import compat
from amela_sts.checkpoints.kmeans import load_centres
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.engine import EncodeJob, StsEngine, SynthesizeJob
from amela_sts.vocoder.generator import load_generator
from amela_sts.voices import VoiceIndex
from amela_sts.windows import Window

pytestmark = [
    pytest.mark.textless,
    pytest.mark.skipif(not compat.has_textless(), reason="textless is not installed here"),
]


@pytest.fixture
def speech_encoder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """textless's own SpeechEncoder over a checkpoint that fairseq reads without help."""
    cluster = pytest.importorskip("sklearn.cluster")
    monkeypatch.setenv("TEXTLESS_CHECKPOINT_ROOT", str(tmp_path))
    reader = compat.legacy("textless.data.hubert_feature_reader").HubertFeatureReader
    quantizer = compat.legacy("textless.data.kmeans_quantizer").KMeansQuantizer
    centres, _ = load_centres(tiny / "kmeans.npz", trust=True)
    estimator = cluster.KMeans(len(centres), init=centres, n_init=1, max_iter=1).fit(centres)
    estimator.cluster_centers_ = centres
    joblib.dump(estimator, tmp_path / "km.bin")
    with compat.loading():
        dense = reader(str(tmp_path / "hubert.pt"), layer=2)
    return compat.legacy("textless.data.speech_encoder").SpeechEncoder(
        dense, quantizer(tmp_path / "km.bin"), deduplicate=False, need_f0=False
    )


@pytest.fixture
def plain(tiny: Path, tmp_path: Path) -> StsEngine:
    from amela_sts.tiny import write_hubert

    write_hubert(tmp_path / "hubert.pt")
    for name in ("kmeans.npz", "vocoder.pt", "vocoder.json", "speakers.txt", "styles.txt", "tiny.toml"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    return StsEngine(ModelFiles.find(str(tmp_path / "tiny.toml"), tmp_path), torch.device("cpu"), trust=True)


@pytest.mark.parametrize("seconds", [0.025, 0.3, 5.0, 30.0])
def test_units_are_those_of_textless(plain: StsEngine, speech_encoder: Any, seconds: float) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    frames = plain.encoder.convolutions.frames(len(samples))
    [ours] = plain.encode([EncodeJob(Window(samples, 0, frames, whole=True), dense=True)])
    theirs = speech_encoder(torch.from_numpy(samples))
    assert ours.units.tolist() == theirs["units"].tolist()
    assert ours.features is not None
    assert np.array_equal(ours.features, theirs["dense"].numpy())


@pytest.mark.parametrize("route", ["textless", "fairseq"])
def test_audio_is_that_of_textless_by_either_route(plain: StsEngine, tmp_path: Path, route: Any) -> None:
    assert plain.vocoder is not None
    if route == "fairseq":
        pytest.importorskip("fairseq.models.text_to_speech", reason="this fairseq has no vocoder")
        network = plain.vocoder.network
        generator, _ = load_generator(tmp_path / "vocoder.pt", plain.vocoder.config, trust=True, route=route)
        network.__init__(generator, plain.vocoder.config, torch.device("cpu"))  # type: ignore[misc]
    vocoder = compat.legacy("textless.vocoders.hifigan.vocoder").CodeHiFiGANVocoder(
        str(tmp_path / "vocoder.pt"),
        str(tmp_path / "vocoder.json"),
        str(tmp_path / "speakers.txt"),
        str(tmp_path / "styles.txt"),
    )
    units = np.random.default_rng(2).integers(0, 50, 200)
    [ours] = plain.synthesize([SynthesizeJob(Window(units, 0, 200, whole=True), VoiceIndex(2, 1))])
    with torch.inference_mode():
        theirs = vocoder(torch.from_numpy(units)[None], speaker_id=2, style_id=1).numpy()
        predicted = vocoder(torch.from_numpy(units)[None], dur_prediction=True).numpy()
    assert np.array_equal(ours, theirs)
    durations = plain.predict_durations(Window(units, 0, 200, whole=True))
    assert durations.sum() * 320 == len(predicted)
    assert list(vocoder.speakers) == list(plain.vocoder.voices.speakers)

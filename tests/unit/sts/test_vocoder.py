"""The vocoder's two routes, its voices, its windows and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amela.sts.v1.sts_pb2 import SynthesizeRequest, Voice
from amela_common.errors import ConfigError, RequestError
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.engine import StsEngine, SynthesizeJob, Vocoder
from amela_sts.requests import check_length, durations_of, units_of
from amela_sts.tiny import write_centres, write_hubert, write_vocoder
from amela_sts.vocoder.codehifigan import CodeHiFiGAN, Utterance
from amela_sts.vocoder.config import read_config
from amela_sts.vocoder.generator import available_route, load_generator
from amela_sts.voices import VoiceIndex, read_names
from amela_sts.windows import Window, Windows

CPU = torch.device("cpu")


def _units(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 50, count))


@pytest.fixture
def vocoder(engine: StsEngine) -> Vocoder:
    assert engine.vocoder is not None
    return engine.vocoder


@pytest.mark.parametrize(("speakers", "styles"), [(4, 3), (4, 0), (0, 0)])
def test_audio_is_what_the_generators_own_forward_makes(speakers: int, styles: int, tmp_path: Path) -> None:
    weights, options = tmp_path / "vocoder.pt", tmp_path / "vocoder.json"
    write_vocoder(weights, options, speakers=speakers, styles=styles)
    config = read_config(options)
    generator, _ = load_generator(weights, config, trust=True)
    units, given = _units(40), {}
    if speakers:
        given["spkr"] = torch.tensor([[2]])
    if styles:
        given["style"] = torch.tensor([[1]])
        if available_route() == "fairseq":
            # Fairseq's takes a style as any other conditioning, embedded already.
            given["style"] = generator.style(given["style"]).transpose(1, 2)
    with torch.inference_mode():
        theirs = generator(code=units[None], **given)[0, 0]
    [ours] = CodeHiFiGAN(generator, config, CPU).synthesize([Utterance(units, 2, 1)])
    assert torch.equal(ours, theirs)
    assert len(ours) == 40 * config.hop


def test_predicted_durations_are_those_of_the_generators_own_forward(vocoder: Vocoder) -> None:
    units = _units(60)
    durations = vocoder.network.durations(units)
    assert durations.min() >= 1
    assert len(set(durations.tolist())) > 1
    [expanded] = vocoder.network.synthesize([Utterance(torch.repeat_interleave(units, durations))])
    given: dict[str, Any] = {"spkr": torch.tensor([[0]]), "style": torch.tensor([[0]])}
    generator = vocoder.network._generator
    if available_route() == "fairseq":
        given["style"] = generator.style(given["style"]).transpose(1, 2)
    with torch.inference_mode():
        theirs = generator(code=units[None], dur_prediction=True, **given)[0, 0]
    assert torch.equal(expanded, theirs)


def test_windows_of_units_join_to_the_audio_of_the_whole(engine: StsEngine, vocoder: Vocoder) -> None:
    units = _units(700)
    [whole] = vocoder.network.synthesize([Utterance(units, 1, 2)])
    windows = Windows(100, vocoder.config.context)
    cut = [*windows.push(units.numpy()), *windows.finish()]
    assert len(cut) == 7
    joined = np.concatenate(engine.synthesize([SynthesizeJob(window, VoiceIndex(1, 2)) for window in cut]))
    assert len(joined) == len(whole)
    assert np.abs(joined - whole.numpy()).max() < 1e-5


def test_the_context_of_a_window_is_what_a_sample_hangs_on(vocoder: Vocoder) -> None:
    units, context = _units(200), vocoder.config.context
    changed = units.clone()
    changed[100] = (changed[100] + 1) % 50
    one, other = vocoder.network.synthesize([Utterance(units), Utterance(changed)])
    differing = torch.nonzero(one != other).flatten() // vocoder.config.hop
    assert 100 - context <= differing.min() <= 100 - context + 4
    assert 100 + context - 4 <= differing.max() <= 100 + context


def _change(path: Path, **options: Any) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f0": True}, "wants pitch besides units"),
        ({"embedder_params": {"n": 1}}, "wants speaker embeddings besides units"),
        ({"upsample_kernel_sizes": [10, 8, 8, 4, 4]}, "do not go with upsample_rates: 10 for rate 5"),
        ({"upsample_kernel_sizes": [11]}, "do not go with upsample_rates"),
    ],
)
def test_vocoders_that_cannot_be_served_are_refused(
    options: dict[str, Any], message: str, tiny: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny / "vocoder.json", tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_config(_change(tmp_path / "vocoder.json", **options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "holds a list"),
        ("{}", "num_embeddings"),
    ],
)
def test_a_configuration_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "vocoder.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "vocoder.json")


@pytest.mark.parametrize(
    "options",
    [
        {"num_embeddings": "many"},
        {"num_embeddings": None},
        {"num_embeddings": float("inf")},
        {"sampling_rate": 0},
        {"upsample_rates": 5},
        {"upsample_rates": [0, 4, 4, 2, 2], "upsample_kernel_sizes": [10, 8, 8, 4, 4]},
        {"resblock_dilation_sizes": [[1, 3, 5]]},
        {"resblock_kernel_sizes": []},
    ],
)
def test_a_configuration_with_odd_values_is_refused(
    options: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny / "vocoder.json", tmp_path)
    with pytest.raises(ConfigError, match="not a CodeHiFiGAN's configuration"):
        read_config(_change(tmp_path / "vocoder.json", **options))


def test_weights_of_another_configuration_are_refused(tiny: Path, tmp_path: Path) -> None:
    write_vocoder(tmp_path / "vocoder.pt", tmp_path / "vocoder.json", speakers=5)
    with pytest.raises(ConfigError, match=r"does not fit its configuration.*spkr\.weight"):
        load_generator(tiny / "vocoder.pt", read_config(tmp_path / "vocoder.json"), trust=True)
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="it has no `generator`"):
        load_generator(tmp_path / "other.pt", read_config(tmp_path / "vocoder.json"), trust=True)


def _model(folder: Path, change: Callable[[Path], None]) -> ModelFiles:
    change(folder)
    return ModelFiles.find(str(folder / "tiny.toml"), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: write_vocoder(folder / "vocoder.pt", folder / "vocoder.json", clusters=20),
            "a vocoder for 20 units, but .* makes 50",
        ),
        (
            lambda folder: (folder / "speakers.txt").write_text("a\nb\nc\nd\ne\n"),
            "5 different names in 5 lines for 4 speakers",
        ),
        (lambda folder: (folder / "styles.txt").write_text("a\na\n"), "1 different names in 2 lines"),
        (
            lambda folder: np.savez(folder / "kmeans.npz", centres=np.ones((50, 31), np.float32)),
            "centres of width 31 for features of width 32",
        ),
        (
            lambda folder: (folder / "tiny.toml").write_text(
                (folder / "tiny.toml").read_text().replace("layer = 2", "layer = 3")
            ),
            "layer 3: .* has 2 layers",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    change: Callable[[Path], None], message: str, tiny: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    with pytest.raises(ConfigError, match=message):
        StsEngine(_model(folder, change), CPU, trust=True)


def test_the_fingerprint_follows_what_changes_results(engine: StsEngine, tiny: Path, tmp_path: Path) -> None:
    def fingerprint(change: Callable[[Path], object]) -> str:
        folder = Path(shutil.copytree(tiny, tmp_path / str(len(list(tmp_path.iterdir())))))
        change(folder)
        return StsEngine(ModelFiles.find(str(folder / "tiny.toml"), folder), CPU, trust=True).fingerprint

    def rename(folder: Path) -> None:
        (folder / "kmeans.npz").rename(folder / "centres.npz")
        card = folder / "tiny.toml"
        card.write_text(card.read_text().replace("kmeans.npz", "centres.npz"))

    assert fingerprint(lambda folder: None) == engine.fingerprint
    assert fingerprint(rename) == engine.fingerprint
    changed = [
        fingerprint(change)
        for change in (
            lambda folder: write_hubert(folder / "hubert.pt", seed=1, batch_norm=True),
            lambda folder: write_centres(folder / "kmeans.npz", folder / "hubert.pt", 2, seed=1),
            lambda folder: write_vocoder(folder / "vocoder.pt", folder / "vocoder.json", seed=1),
            lambda folder: _change(folder / "vocoder.json", sampling_rate=22050),
        )
    ]
    assert len({engine.fingerprint, *changed}) == 5


def test_the_canary_finds_weights_that_are_not_finite(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    write_hubert(
        folder / "hubert.pt",
        change=lambda state: state["model"]["encoder.layers.0.fc1.bias"].fill_(float("nan")),
    )
    engine = StsEngine(ModelFiles.find(str(folder / "tiny.toml"), folder), CPU, trust=True)
    with pytest.raises(ConfigError, match="not finite"):
        engine.canary()


def test_voices_are_found_by_name_and_by_index(vocoder: Vocoder) -> None:
    assert vocoder.voices.find(Voice()) == (0, 0)
    assert vocoder.voices.find(Voice(speaker_name="ex03", style_index=1)) == (2, 1)
    assert vocoder.voices.find(Voice(speaker_index=3, style_name="whisper")) == (3, 2)


@pytest.mark.parametrize(
    ("voice", "field"),
    [
        (Voice(speaker_name="ex99"), "voice.speaker_name"),
        (Voice(speaker_index=4), "voice.speaker_index"),
        (Voice(style_name=""), "voice.style_name"),
        (Voice(style_index=2**32 - 1), "voice.style_index"),
    ],
)
def test_a_voice_that_does_not_exist_is_refused_with_those_that_do(
    voice: Voice, field: str, vocoder: Vocoder
) -> None:
    with pytest.raises(RequestError, match="it has ") as caught:
        vocoder.voices.find(voice)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("UNSUPPORTED_OPTION", field)


def test_voices_without_a_list_are_named_by_their_indices(tmp_path: Path) -> None:
    assert read_names(None, 3, "speakers") == ("0", "1", "2")
    (tmp_path / "names.txt").write_text("anna\nben\n")
    assert read_names(tmp_path / "names.txt", 3, "speakers") == ("anna", "ben", "2")


@pytest.mark.parametrize(
    ("request_", "field", "message"),
    [
        (SynthesizeRequest(durations=[1]), "units", "none to speak"),
        (
            SynthesizeRequest(units=[3, 50], durations=[1, 1]),
            "units[1]",
            r"units\[1\] is 50, .* from 0 to 49",
        ),
        (SynthesizeRequest(units=[1, 2]), "durations", "would be cut short"),
        (SynthesizeRequest(units=[1, 2], durations=[1]), "durations", "1 of them for 2 units"),
        (SynthesizeRequest(units=[1, 2], durations=[1, 0]), "durations", r"durations\[1\] is 0"),
        (SynthesizeRequest(units=[1], durations=[1], predict_durations=True), "durations", "not both"),
    ],
)
def test_a_request_to_synthesize_that_is_wrong_says_where(
    request_: SynthesizeRequest, field: str, message: str, vocoder: Vocoder
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        durations_of(request_, units_of(request_, 50), vocoder)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("INVALID_REQUEST", field)


def test_a_vocoder_without_a_predictor_does_not_cut_deduplicated_units_short(tmp_path: Path) -> None:
    write_vocoder(tmp_path / "vocoder.pt", tmp_path / "vocoder.json", durations=False)
    config = read_config(tmp_path / "vocoder.json")
    generator, _ = load_generator(tmp_path / "vocoder.pt", config, trust=True)
    vocoder = Vocoder(CodeHiFiGAN(generator, config, CPU), config, voices=None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="predicts no durations") as caught:
        durations_of(SynthesizeRequest(units=[1, 2], predict_durations=True), np.array([1, 2]), vocoder)
    assert caught.value.reason == "UNSUPPORTED_OPTION"


def test_units_that_last_too_long_are_refused() -> None:
    check_length(500, 50.0, None)
    check_length(500, 50.0, 10.0)
    with pytest.raises(RequestError, match=r"last 10\.0 s, this server takes 9 s") as caught:
        check_length(501, 50.0, 9.0)
    assert caught.value.reason == "AUDIO_TOO_LONG"


def test_durations_are_predicted_alike_in_windows(engine: StsEngine) -> None:
    units = _units(500).numpy()
    windows = Windows(50, 2)
    cut = [*windows.push(units), *windows.finish()]
    whole = engine.predict_durations(Window(units, 0, 500, whole=True))
    assert np.concatenate([engine.predict_durations(window) for window in cut]).tolist() == whole.tolist()

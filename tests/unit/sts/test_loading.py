"""HuBERT checkpoints load as they were saved, to the last tensor, or are refused with the reason."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from amela_common.errors import ConfigError
from amela_sts import compat
from amela_sts.checkpoints.integrity import checked
from amela_sts.checkpoints.tensors import read_tensors
from amela_sts.encoder.hubert import HubertEncoder
from amela_sts.encoder.loading import load_hubert
from amela_sts.tiny import write_hubert

_G, _V = "encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.weight_v"
_PARAMETRIZED = "encoder.pos_conv.0.parametrizations.weight.original"
_WAVE = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(7))

Weights = dict[str, torch.Tensor]


def _write(path: Path, change: Callable[[Weights], None], **options: Any) -> Path:
    write_hubert(path, change=lambda state: change(state["model"]), **options)
    return path


def _features(path: Path, **options: Any) -> torch.Tensor:
    loaded = load_hubert(path, trust=True, **options)
    return HubertEncoder(loaded, 2, torch.device("cpu")).features([_WAVE])[0]


def _effective(weights: Weights) -> torch.Tensor:
    return torch._weight_norm(weights.pop(_V), weights.pop(_G), 2)


def _along_dimension_0(weights: Weights) -> None:
    weight = _effective(weights)
    # Only the direction of weight_v counts.
    weights |= {_G: weight.norm(dim=(1, 2), keepdim=True), _V: 1.7 * weight}


def _over_everything(weights: Weights) -> None:
    weight = _effective(weights)
    weights |= {_G: weight.norm(), _V: 0.3 * weight}


def _parametrized(weights: Weights) -> None:
    weights |= {_PARAMETRIZED + "0": weights.pop(_G), _PARAMETRIZED + "1": weights.pop(_V)}


def _parametrized_along_dimension_0(weights: Weights) -> None:
    _along_dimension_0(weights)
    _parametrized(weights)


def _plain(weights: Weights) -> None:
    weights["encoder.pos_conv.0.weight"] = _effective(weights)


def _lost(weights: Weights) -> None:
    channels = weights[_V].shape[0]
    weights |= {_G: torch.ones(channels, 1, 1), _V: torch.ones(channels)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Features of the unmodified model, as fairseq itself loads and computes them."""
    path = _write(tmp_path_factory.mktemp("original") / "hubert.pt", lambda weights: None)
    with compat.loading():
        [model], _, _ = compat.legacy("fairseq.checkpoint_utils").load_model_ensemble_and_task([str(path)])
        with torch.inference_mode():
            return model.eval().extract_features(_WAVE[None], output_layer=2)[0][0]


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda weights: None, 0.0),
        (_parametrized, 0.0),
        (_plain, 0.0),
        (_along_dimension_0, 2e-6),
        (_parametrized_along_dimension_0, 2e-6),
        (_over_everything, 2e-6),
    ],
)
def test_features_are_those_of_the_original_in_every_form_of_pos_conv(
    change: Callable[[Weights], None], tolerance: float, original: torch.Tensor, tmp_path: Path
) -> None:
    features = _features(_write(tmp_path / "hubert.pt", change))
    assert (features - original).abs().max().item() <= tolerance


def test_pos_conv_behind_a_batch_norm_is_built_as_it_was_trained(tmp_path: Path) -> None:
    write_hubert(tmp_path / "hubert.pt", batch_norm=True)
    loaded = load_hubert(tmp_path / "hubert.pt", trust=True)
    weights = {
        name.removeprefix("encoder.pos_conv."): tensor for name, tensor in loaded.model.state_dict().items()
    }
    hidden = torch.randn(1, 32, 40, generator=torch.Generator().manual_seed(0))
    normed = torch.nn.functional.batch_norm(
        hidden, weights["0.running_mean"], weights["0.running_var"], weights["0.weight"], weights["0.bias"]
    )
    # An even number of taps makes one frame too many, which fairseq's SamePad cuts off.
    convolved = torch.nn.functional.conv1d(
        normed, weights["1.weight"], weights["1.bias"], padding=8, groups=4
    )[..., :-1]
    with torch.inference_mode():
        assert torch.equal(loaded.model.encoder.pos_conv(hidden), torch.nn.functional.gelu(convolved))
    assert loaded.warnings == ()


@pytest.mark.parametrize("change", [_along_dimension_0, _lost])
def test_fairseq_alone_fails_on_the_shapes_even_when_it_is_lenient(
    change: Callable[[Weights], None], tmp_path: Path
) -> None:
    path = str(_write(tmp_path / "hubert.pt", change))
    load = compat.legacy("fairseq.checkpoint_utils").load_model_ensemble_and_task
    with compat.loading(), pytest.raises(RuntimeError, match=r"size mismatch for encoder\.pos_conv"):
        load([path], strict=False)


def test_fairseq_alone_when_lenient_is_silently_wrong_about_a_batch_norm(tmp_path: Path) -> None:
    write_hubert(tmp_path / "hubert.pt", batch_norm=True)
    load = compat.legacy("fairseq.checkpoint_utils").load_model_ensemble_and_task
    with compat.loading(), torch.inference_mode():
        [model], _, _ = load([str(tmp_path / "hubert.pt")], strict=False)
        lenient = model.eval().extract_features(_WAVE[None], output_layer=2)[0][0]
    assert (lenient - _features(tmp_path / "hubert.pt")).abs().max() > 0.05


def test_a_lost_pos_conv_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = _write(tmp_path / "hubert.pt", _lost)
    with pytest.raises(
        ConfigError, match=r"weight_v has shape \[32\] where .* \[32, 8, 16\]; --pos-conv reinit"
    ):
        load_hubert(path, trust=True)


def test_a_weight_norm_of_no_known_dimension_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "hubert.pt", lambda weights: weights.update({_G: torch.ones(1, 3, 1)}))
    with pytest.raises(ConfigError, match=r"weight_g of shape \[1, 3, 1\] is no norm"):
        load_hubert(path, trust=True)


def test_a_lost_pos_conv_is_drawn_anew_the_same_every_time_when_that_is_asked_for(
    original: torch.Tensor, tmp_path: Path
) -> None:
    path = _write(tmp_path / "hubert.pt", _lost)
    torch.manual_seed(1)
    one = _features(path, pos_conv_policy="reinit")
    torch.manual_seed(2)
    other = _features(path, pos_conv_policy="reinit")
    assert torch.equal(one, other)
    assert (one - original).abs().max() > 0.05
    [warning] = load_hubert(path, trust=True, pos_conv_policy="reinit").warnings
    assert "re-initialised from seed" in warning


def test_what_can_be_recovered_is_never_drawn_anew(original: torch.Tensor, tmp_path: Path) -> None:
    path = _write(tmp_path / "hubert.pt", _plain)
    assert load_hubert(path, trust=True, pos_conv_policy="reinit").warnings == ()
    assert torch.equal(_features(path, pos_conv_policy="reinit"), original)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.update({"encoder.layers.9.fc1.weight": torch.ones(2)}),
            r"encoder\.layers\.9\.fc1\.weight is none of the model's",
        ),
        (
            lambda weights: weights.pop("encoder.layers.1.fc2.bias"),
            r"encoder\.layers\.1\.fc2\.bias is missing",
        ),
        (
            lambda weights: weights.update({"post_extract_proj.weight": torch.ones(32, 15)}),
            r"post_extract_proj\.weight has shape \[32, 15\], not \[32, 16\]",
        ),
        (lambda weights: weights.pop(_V), r"encoder\.pos_conv\.0\.weight is missing"),
        (
            lambda weights: weights.update({"encoder.pos_conv.1.bias": torch.ones(2)}),
            r"encoder\.pos_conv\.1\.bias is none of the model's",
        ),
    ],
)
def test_a_key_too_many_too_few_or_misshapen_is_refused_by_name(
    change: Callable[[Weights], None], message: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "hubert.pt", change)
    with pytest.raises(ConfigError, match=message):
        load_hubert(path, trust=True)


class _Runs:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._trace}",)


@pytest.mark.parametrize("trust", [False, True])
def test_a_pickle_that_would_run_code_runs_none(trust: bool, tmp_path: Path) -> None:
    path, trace = tmp_path / "hubert.pt", tmp_path / "trace"
    torch.save({"model": _Runs(trace)}, path)
    with pytest.raises(ConfigError, match="could run code" if trust else "a pickle can run code"):
        load_hubert(path, trust=trust)
    assert not trace.exists()


def test_a_configuration_that_fairseq_would_evaluate_is_not_evaluated(tmp_path: Path) -> None:
    path, trace = tmp_path / "hubert.pt", tmp_path / "trace"
    code = f"__import__('os').system('touch {trace}') or [(16,10,5)]"
    write_hubert(path, change=lambda state: state["cfg"]["model"].update(conv_feature_layers=code))
    with pytest.raises(ConfigError, match="conv_feature_layers is not part of a list"):
        load_hubert(path, trust=True)
    assert not trace.exists()


def test_a_checkpoint_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole, cut = tmp_path / "hubert.pt", tmp_path / "cut.pt"
    write_hubert(whole)
    data = whole.read_bytes()
    for kept in (0, 1, 100, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:kept])
        with pytest.raises(ConfigError, match=r"cut\.pt: not a checkpoint, or a damaged one"):
            load_hubert(cut, trust=True)


def test_a_checkpoint_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    write_hubert(tmp_path / "hubert.pt")
    data = (tmp_path / "hubert.pt").read_bytes()
    assert b"latin1" in data
    (tmp_path / "hubert.pt").write_bytes(data.replace(b"latin1", b"lat$n1"))
    with pytest.raises(ConfigError, match="a damaged one: LookupError: unknown encoding"):
        load_hubert(tmp_path / "hubert.pt", trust=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["cfg"]["model"].update(_name="wav2vec2"), "a checkpoint of 'wav2vec2'"),
        (lambda state: state.pop("cfg"), "it has no cfg and model"),
        (lambda state: state["model"].update(step="three"), "holds more than tensors"),
        (lambda state: state["model"].update({7: torch.ones(1)}), "names are not text"),
        (lambda state: state["cfg"]["model"].update({7: "seven"}), "names are not text"),
        (
            lambda state: state["cfg"]["model"].update(encoder_layers="many"),
            "fairseq cannot build this model",
        ),
        (lambda state: state["cfg"].pop("task"), "its cfg lacks one of them"),
    ],
)
def test_what_is_no_hubert_checkpoint_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    write_hubert(tmp_path / "hubert.pt", change=change)
    with pytest.raises(ConfigError, match=message):
        load_hubert(tmp_path / "hubert.pt", trust=True)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pt: No such file"):
        load_hubert(tmp_path / "nowhere.pt", trust=True)


def test_a_checkpoint_that_holds_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with (
        checked(tmp_path / "list.pt", trust=True, pickled=True) as opened,
        pytest.raises(ConfigError, match="holds a list"),
    ):
        read_tensors(opened, tmp_path / "list.pt")


def test_loading_draws_nothing_from_the_global_random_state_that_reaches_the_features(tmp_path: Path) -> None:
    write_hubert(tmp_path / "hubert.pt")
    torch.manual_seed(1)
    one = _features(tmp_path / "hubert.pt")
    torch.manual_seed(2)
    assert torch.equal(_features(tmp_path / "hubert.pt"), one)

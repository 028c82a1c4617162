"""Each accommodation is still needed: without it the error is there, with it it is gone."""

import dataclasses
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from amela_sts import compat
from amela_sts.commands import known_errors
from amela_sts.compat import checkpoint_folder, integral_floats, numpy_aliases, safe_globals, versions
from omegaconf import II, OmegaConf
from omegaconf.errors import ValidationError


def _import_without(name: str, module: str) -> "subprocess.CompletedProcess[str]":
    """Import a module in a new process, with every accommodation but one."""
    code = f"""
from contextlib import ExitStack
from amela_sts import compat
with ExitStack() as stack:
    for each in compat.ACCOMMODATIONS:
        if each.during == "import" and each.name != {name!r}:
            stack.enter_context(each.held())
    import {module}
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "fairseq",
            "mutable default <class 'fairseq.dataclass.configs.CommonConfig'> for field common"
            " is not allowed: use default_factory",
        ),
        (
            "hydra",
            "mutable default <class 'hydra.conf.JobConf.JobConfig.OverrideDirname'> for field"
            " override_dirname is not allowed: use default_factory",
        ),
    ],
)
def test_python_311_refuses_the_defaults_of_fairseq_and_hydra(module: str, message: str) -> None:
    failed = _import_without("dataclass_defaults", module)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert _import_without("nothing", module).returncode == 0


@pytest.mark.parametrize("named", [True, False])
def test_textless_is_shown_a_folder_that_is_there_while_it_is_imported(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or it makes one where, as in a container, nothing can be written.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TEXTLESS_CHECKPOINT_ROOT", raising=False)
    if named:
        monkeypatch.setenv("TEXTLESS_CHECKPOINT_ROOT", "/proc/textless")
    before = os.environ.get("TEXTLESS_CHECKPOINT_ROOT")
    with checkpoint_folder.ACCOMMODATION.held():
        assert Path(os.environ["TEXTLESS_CHECKPOINT_ROOT"]).is_dir()
    assert os.environ.get("TEXTLESS_CHECKPOINT_ROOT") == before
    assert not (tmp_path / ".textless").exists()


def test_a_folder_of_checkpoints_that_is_there_stays_textlesss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTLESS_CHECKPOINT_ROOT", str(tmp_path))
    with checkpoint_folder.ACCOMMODATION.held():
        assert os.environ["TEXTLESS_CHECKPOINT_ROOT"] == str(tmp_path)


def test_numpy_has_lost_the_names_that_fairseq_of_2021_reads() -> None:
    message = numpy_aliases.ACCOMMODATION.error
    with pytest.raises(AttributeError, match=message):
        np.float  # noqa: B018
    with numpy_aliases.ACCOMMODATION.held():
        assert (np.float, np.int, np.object) == (float, int, object)
    with pytest.raises(AttributeError, match=message):
        np.float  # noqa: B018


def test_textless_can_be_imported_without_torchaudio() -> None:
    failed = _import_without("torchaudio_resample", "torchaudio")
    if failed.returncode == 0:
        pytest.skip("torchaudio is installed here")
    assert "No module named 'torchaudio'" in failed.stderr
    assert _import_without("nothing", "torchaudio").returncode == 0


def test_the_stand_in_for_torchaudio_resamples() -> None:
    code = """
import torch
from amela_sts.compat import torchaudio_resample
with torchaudio_resample.ACCOMMODATION.held():
    import torchaudio
tone = torch.sin(torch.arange(8000) * 0.05)
up = torchaudio.functional.resample(tone[None], 8000, 16000)
assert up.shape == (1, 16000), up.shape
assert (up[0, ::2] - tone)[100:-100].abs().max() < 1e-2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class _Inner:
    rate: int = 1


@dataclass
class _Task:
    label_rate: int = 1
    dropout: float = 0.5
    inner: _Inner = dataclasses.field(default_factory=_Inner)


@dataclass
class _Model:
    label_rate: int = II("task.label_rate")


def test_omegaconf_refuses_an_integral_float_for_an_int() -> None:
    message = integral_floats.ACCOMMODATION.error
    with pytest.raises(ValidationError, match=message):
        OmegaConf.merge(_Task(), {"label_rate": 50.0})
    with integral_floats.ACCOMMODATION.held():
        for target in (_Task(), _Task, OmegaConf.structured(_Task)):
            assert OmegaConf.merge(target, {"label_rate": 50.0}).label_rate == 50
        nested = OmegaConf.merge(_Task(), OmegaConf.create({"inner": {"rate": 3.0}}), {"dropout": 0.1})
        assert (nested.inner.rate, nested.dropout) == (3, 0.1)
        interpolated = OmegaConf.merge(_Model(), {"label_rate": 50.0}).label_rate
        assert (interpolated, type(interpolated)) == (50, int)
    with pytest.raises(ValidationError, match=message):
        OmegaConf.merge(_Task(), {"label_rate": 50.0})


def test_only_integral_floats_of_int_fields_are_converted() -> None:
    with integral_floats.ACCOMMODATION.held():
        with pytest.raises(ValidationError, match=r"Value '50\.5' could not be converted to Integer"):
            OmegaConf.merge(_Task(), {"label_rate": 50.5})
        kept = OmegaConf.merge(_Task(), {"dropout": 1.0}).dropout
        assert (kept, type(kept)) == (1.0, float)
        assert OmegaConf.merge({"free": 1}, {"free": 2.0}) == {"free": 2.0}
        source = OmegaConf.create({"label_rate": 50.0})
        OmegaConf.merge(_Task(), source)
        assert source.label_rate == 50.0


def test_torch_refuses_the_classes_in_a_checkpoint_of_fairseq(tiny: Path) -> None:
    with pytest.raises(Exception, match=safe_globals.ACCOMMODATION.error):
        torch.load(tiny / "hubert.pt", weights_only=True)
    with safe_globals.ACCOMMODATION.held():
        state = torch.load(tiny / "hubert.pt", weights_only=True)
    assert state["extra_state"]["val_loss"] == pytest.approx(3.3)


def test_scalars_under_the_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    modern, old = tmp_path / "modern.pt", tmp_path / "old.pt"
    torch.save({"loss": np.float64(3.3)}, modern)
    with zipfile.ZipFile(modern) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            target.writestr(item, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    with pytest.raises(Exception, match=r"numpy\.core\.multiarray\.scalar"):
        torch.load(old, weights_only=True)
    with compat.loading():
        assert torch.load(old, weights_only=True)["loss"] == pytest.approx(3.3)


def test_importing_twice_changes_nothing_and_leaves_nothing_behind() -> None:
    code = """
import dataclasses, sys
import numpy as np
from amela_sts import compat
strict, names = dataclasses._get_field, set(vars(np))
compat.import_legacy()
first = sys.modules["fairseq"]
compat.import_legacy.__wrapped__()
assert sys.modules["fairseq"] is first
assert dataclasses._get_field is strict
assert "float" not in vars(np) and names <= set(vars(np))
@dataclasses.dataclass
class Inner: x: int = 1
try:
    @dataclasses.dataclass
    class Outer: inner: Inner = Inner()
except ValueError:
    sys.exit(0)
sys.exit("the rule of Python 3.11 is gone")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_versions_are_told_with_their_cure() -> None:
    assert versions.faults({"omegaconf": "2.0.6", "hydra-core": "1.0.7"}) == []
    faults = versions.faults({"omegaconf": "1.4.1"})
    assert len(faults) == 2
    assert "omegaconf is 1.4.1" in faults[0]
    assert "cannot import name 'II'" in faults[0]
    assert "pip install 'omegaconf==2.0.6'" in faults[0]
    assert "hydra-core is missing" in faults[1]
    assert "No config source for pkg" in faults[1]
    assert "pip install 'hydra-core==1.0.7'" in faults[1]


@pytest.mark.parametrize(
    "error",
    [
        "could not be converted to Integer",
        "size mismatch for encoder.pos_conv",
        "cannot import name 'II'",
        "No config source for pkg",
        "Unsupported global",
        "use default_factory",
        "has no attribute 'float'",
    ],
)
def test_the_doctor_knows_each_error_of_the_labs_page(error: str) -> None:
    assert any(error in row[0] and all(row) for row in known_errors())


def test_the_doctor_finds_this_environment_well() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "amela_sts", "doctor"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout
    assert "size mismatch for encoder.pos_conv" in told.stdout

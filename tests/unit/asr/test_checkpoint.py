"""Models on disk, whole and not."""

import json
from pathlib import Path

import pytest
from amela_asr.engines.checkpoint import Family, find, is_local
from amela_asr.engines.salm_folder import check_salm_folder, missing_parts
from amela_common.errors import ConfigError

WHOLE_SALM = (
    "model.safetensors",
    "tokenizer_config.json",
    "tokenizer.json",
    "llm_backbone/config.json",
)


@pytest.fixture
def salm(tmp_path: Path) -> Path:
    folder = tmp_path / "my-salm"
    for name in WHOLE_SALM:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    config = {"pretrained_llm": "Qwen/Qwen3-1.7B", "perception": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_file_is_a_nemo_checkpoint_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.nemo"
    path.touch()
    found = find(str(path), offline=True)

    assert (found.name, found.family, found.path) == ("model.nemo", Family.NEMO, path)


def test_a_staged_folder_is_what_it_holds(tmp_path: Path, salm: Path) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged/model.nemo").touch()

    assert find(str(tmp_path / "staged"), offline=True).path == tmp_path / "staged/model.nemo"
    assert find(str(salm), offline=True).family is Family.SALM
    assert find(str(salm), offline=True).name == "my-salm"


@pytest.mark.parametrize("model", ["/none/such", "./none", "none.nemo", "~/none-such"])
def test_a_path_that_leads_nowhere_is_not_looked_for_on_the_network(model: str) -> None:
    assert is_local(model)
    with pytest.raises(ConfigError, match="no such file or folder"):
        find(model, offline=False)


def test_a_hubs_name_is_not_local() -> None:
    assert not is_local("nvidia/canary-qwen-2.5b")


@pytest.mark.parametrize("names", [(), ("a.nemo", "b.nemo"), ("config.json",), ("weights.safetensors",)])
def test_a_folder_of_anything_else_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"one \.nemo file"):
        find(str(tmp_path), offline=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"perception": 1}', "\xff"])
def test_a_folder_with_another_config_is_no_salm(salm: Path, content: str) -> None:
    (salm / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError):
        find(str(salm), offline=True)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.touch()
    with pytest.raises(ConfigError, match=r"give a \.nemo file"):
        find(str(path), offline=True)


def test_a_whole_salm_lacks_nothing(salm: Path) -> None:
    assert missing_parts(salm) == []
    check_salm_folder(salm)


@pytest.mark.parametrize("name", WHOLE_SALM)
def test_what_a_salm_lacks_is_named_with_the_cure(salm: Path, name: str) -> None:
    (salm / name).unlink()
    with pytest.raises(ConfigError) as refused:
        check_salm_folder(salm)

    message = str(refused.value)
    assert name in message
    assert "amela-asr stage" in message and "Qwen/Qwen3-1.7B" in message


def test_all_that_is_missing_is_named_at_once(salm: Path) -> None:
    (salm / "tokenizer_config.json").unlink()
    (salm / "llm_backbone/config.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json.*llm_backbone.* are missing"):
        check_salm_folder(salm)

"""`amela-asr stage`, from files, folders and a hub's cache."""

import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from amela_asr import staging
from amela_asr.engines import checkpoint
from amela_asr.engines.loading import load_recognizer
from amela_asr.staging import stage
from amela_common.errors import ConfigError

from ....conftest import program
from .local_hub import local_hub


def test_a_nemo_file_is_staged_whole(models: Path, tmp_path: Path) -> None:
    stage(str(models / "ctc-bpe.nemo"), tmp_path / "staged")

    assert [path.name for path in (tmp_path / "staged").iterdir()] == ["ctc-bpe.nemo"]
    assert load_recognizer(str(tmp_path / "staged"), offline=True, device="cpu").model == "ctc-bpe.nemo"
    assert not (tmp_path / "staged.partial").exists()


def test_a_whole_salm_is_staged_with_everything_and_loads(models: Path, tmp_path: Path) -> None:
    stage(str(models / "salm"), tmp_path / "staged")
    staged = load_recognizer(str(tmp_path / "staged"), offline=True, device="cpu")

    assert staged.fingerprint == load_recognizer(str(models / "salm"), offline=True, device="cpu").fingerprint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's, and no way to the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub: Path, name: str, *files: tuple[str, Path]) -> None:
    """Put files into the cache as a download leaves them: links to contents."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    for number, (target, source) in enumerate(files):
        blob = repository / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, blob)
        link = repository / "snapshots" / ("0" * 40) / target
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


def test_what_a_salm_lacks_comes_from_its_language_model(models: Path, hub: Path, tmp_path: Path) -> None:
    salm = models / "salm"
    cache(hub, "lab/tiny", *[(name, salm / name) for name in ("config.json", "model.safetensors")])
    tokenizer = [(name, salm / name) for name in ("tokenizer.json", "tokenizer_config.json")]
    cache(hub, "tiny-qwen3", ("config.json", salm / "llm_backbone/config.json"), *tokenizer)
    stage("lab/tiny", tmp_path / "staged")

    staged = sorted(path.relative_to(tmp_path / "staged") for path in (tmp_path / "staged").rglob("*.*"))
    assert [str(path) for path in staged] == [
        "config.json",
        "llm_backbone/config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not any(path.is_symlink() for path in (tmp_path / "staged").rglob("*"))
    assert load_recognizer(str(tmp_path / "staged"), offline=True, device="cpu").name == "salm"


@pytest.mark.parametrize("name", ["lab/unknown", "nvidia/canary-qwen-2.5b"])
def test_a_model_that_cannot_be_had_leaves_nothing_behind(hub: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        stage(name, tmp_path / "staged")
    assert list(tmp_path.glob("staged*")) == []


@pytest.mark.parametrize("fault", ["truncated", "not an archive", "no weights"])
def test_a_broken_checkpoint_is_not_staged(models: Path, tmp_path: Path, fault: str) -> None:
    broken = tmp_path / "broken.nemo"
    whole = (models / "ctc-char.nemo").read_bytes()
    if fault == "no weights":
        with tarfile.open(broken, "w") as archive:
            archive.add(models / "clips.json", "model_config.yaml")
    else:
        broken.write_bytes(whole[:1000] if fault == "truncated" else b"<html>404</html>" * 100)
    with pytest.raises(ConfigError, match="fetch it again"):
        stage(str(broken), tmp_path / "staged")
    assert not (tmp_path / "staged").exists()


def test_a_folder_that_exists_is_not_touched(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()

    assert staging.main([str(models / "ctc-char.nemo"), "--to", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mine").exists()


def test_a_disk_that_cannot_be_written_is_named(models: Path) -> None:
    with pytest.raises(ConfigError, match="--to /proc/staged"):
        stage(str(models / "ctc-char.nemo"), Path("/proc/staged"))


def stage_over_the_network(
    name: str, target: Path, endpoint: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command with an empty cache."""
    cache = {"HF_HOME": str(target.parent / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [program("amela-asr"), "stage", name, "--to", str(target)],
        env={**os.environ, **cache, "HF_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_model_and_what_it_is_built_on_are_downloaded_and_nothing_else(
    models: Path, tmp_path: Path
) -> None:
    salm = models / "salm"
    weights = {name: salm / name for name in ("config.json", "model.safetensors")}
    tokenizer = {name: salm / name for name in ("tokenizer.json", "tokenizer_config.json")}
    config = {"config.json": salm / "llm_backbone/config.json"}
    other = {"README.md": models / "clips.json", "pytorch_model.bin": models / "clips.json"}
    repositories = {"lab/tiny": {**weights, **other}, "tiny-qwen3": {**tokenizer, **config, **other}}
    with local_hub(repositories) as hub:
        ended = stage_over_the_network("lab/tiny", tmp_path / "staged", hub.url)

    assert ended.returncode == 0, ended.stderr
    assert "complete" in ended.stdout
    assert sorted(hub.files_sent) == sorted([*weights, *tokenizer, *config])
    staged = {
        str(path.relative_to(tmp_path / "staged")): path.read_bytes()
        for path in (tmp_path / "staged").rglob("*")
        if path.is_file()
    }
    committed = {str(path.relative_to(salm)): path.read_bytes() for path in salm.rglob("*") if path.is_file()}
    assert staged == committed


def test_a_nemo_file_is_downloaded_by_its_name(models: Path, tmp_path: Path) -> None:
    files = {"tiny.nemo": models / "ctc-bpe.nemo", "README.md": models / "clips.json"}
    with local_hub({"lab/tiny": files}) as hub:
        ended = stage_over_the_network("lab/tiny", tmp_path / "staged", hub.url)

    assert ended.returncode == 0, ended.stderr
    assert hub.files_sent == ["tiny.nemo"]
    staged = tmp_path / "staged/tiny.nemo"
    assert staged.read_bytes() == (models / "ctc-bpe.nemo").read_bytes()


@pytest.mark.parametrize(
    ("failure", "complaint"),
    [
        ((404, "RepoNotFound"), "the hub has no such model"),
        ((403, "GatedRepo"), "only to those who log in (HF_TOKEN)"),
        ((500, ""), "answers 500"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_exit_code_2(
    tmp_path: Path, failure: tuple[int, str], complaint: str
) -> None:
    with local_hub({}, failure) as hub:
        ended = stage_over_the_network("lab/tiny", tmp_path / "staged", hub.url)

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("amela-asr: --model lab/tiny: ") and complaint in line
    assert not (tmp_path / "staged").exists()


def test_a_hub_that_nothing_listens_for_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = stage_over_the_network("nvidia/canary-qwen-2.5b", tmp_path / "staged", "http://127.0.0.1:9")

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "the hub at http://127.0.0.1:9 cannot be reached (look at HTTPS_PROXY and HF_ENDPOINT)" in line


def test_a_proxy_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    ended = stage_over_the_network("lab/tiny", tmp_path / "staged", "http://hub.invalid", **proxy)

    assert ended.returncode == 2
    assert "cannot be reached (look at HTTPS_PROXY" in ended.stderr.splitlines()[-1]


def test_a_firewall_that_swallows_calls_does_not_hang_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(checkpoint, "_PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(ConfigError, match="cannot be reached"):
            stage("lab/tiny", tmp_path / "staged")

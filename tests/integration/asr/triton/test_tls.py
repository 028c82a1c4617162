"""The ASR server in front of a real Triton that speaks TLS."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from amela_asr.engine import Options
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.recognizer import Utterance
from amela_asr.engines.triton import TritonEngine
from amela_common.audio import Clip
from amela_common.errors import ConfigError
from amela_common.server import Metrics, Runtime

from ....conftest import program
from ..nemo.conftest import RATE
from .certificates import make_authority
from .conftest import Command, Triton, running_triton


@dataclass
class Secured:
    """Triton with a certificate, and the authority that it is from."""

    triton: Triton
    authority: Path
    stranger: Path


@pytest.fixture(scope="module")
def secured(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = make_authority(folder / "authority.pem")
    stranger = make_authority(folder / "stranger.pem")
    certificate, key = authority.certify(folder, "127.0.0.1")
    flags = ["--grpc-use-ssl=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    with running_triton(models / "tdt.nemo", folder / "log", *flags) as triton:
        yield Secured(triton, authority.path, stranger.path)


def start(tmp_path: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program("amela-asr"), "--registry", str(tmp_path), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_texts_are_those_of_the_engine_in_process(
    secured: Secured, models: Path, commands: list[Command]
) -> None:
    clips = [Clip(command.samples, RATE) for command in commands]
    recognizer = load_recognizer(str(models / "tdt.nemo"), offline=True, device="cpu")
    expected = recognizer.recognize([Utterance(clip, Options()) for clip in clips])
    engine = TritonEngine(secured.triton.url, None, secured.authority, Runtime(Metrics()))
    try:
        await engine.load()
        got = await asyncio.gather(*(engine.recognize(clip, Options(), None) for clip in clips))
    finally:
        await engine.close()

    assert engine.fingerprint == recognizer.fingerprint
    assert got == expected


def test_a_certificate_of_another_authority_ends_the_start_with_the_cure(
    secured: Secured, tmp_path: Path
) -> None:
    ended = start(tmp_path, "--triton-url", secured.triton.url, "--triton-ca", str(secured.stranger))

    assert ended.returncode == 2
    assert "CERTIFICATE_VERIFY_FAILED" in ended.stderr.splitlines()[-1]
    assert "not of the authority in --triton-ca: take the right one" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("host", "trusts", "cure"),
    [
        ("localhost", True, "for another host: use the name in it in --triton-url"),
        ("127.0.0.1", False, "if it speaks TLS, name its certificate's authority with --triton-ca"),
    ],
)
async def test_another_host_name_and_a_call_without_tls_are_told_with_the_cure(
    secured: Secured, host: str, trusts: bool, cure: str
) -> None:
    url = f"{host}:{secured.triton.grpc_port}"
    engine = TritonEngine(url, None, secured.authority if trusts else None, Runtime(Metrics()))
    try:
        with pytest.raises(ConfigError, match=cure):
            await engine.load()
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("content", "complaint"), [("-----BEGIN", "no certificate in it"), (None, "No such file")]
)
def test_an_authority_that_cannot_be_read_is_refused_at_once(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"--triton-ca {path}.*{complaint}"):
        TritonEngine("127.0.0.1:9", None, path, Runtime(Metrics()))

"""A Canary model behind a real `amela-asr`, up to the loss of its device."""

import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from ..calls import Caller, outcome, reason_of
from . import fake_lost_device, nemo_itself
from .conftest import Command


def test_a_canary_gives_words_and_languages_until_its_device_is_lost_and_the_server_ends(
    start_server: Any, families: dict[str, Path], commands: list[Command], models: Path, tmp_path: Path
) -> None:
    model = families["canary-v2"]
    lost = tmp_path / "lost"
    command = [sys.executable, fake_lost_device.__file__, "--model", str(model), "--device", "cpu"]
    flags = ["--audio-root", str(models), "--batch-seconds", "25"]
    server = start_server([*command, *flags], OMP_NUM_THREADS="1", FAKE_DEVICE_LOST=str(lost))
    caller = Caller(server)
    info = caller.info()

    assert (info.server.model.engine, info.server.model.name) == ("nemo", "canary-v2.nemo")
    assert list(info.capabilities.languages) == ["de", "en"]
    assert info.capabilities.word_times and not info.capabilities.word_confidence
    assert not (info.capabilities.prompt or info.capabilities.max_new_tokens)

    # Long enough for the voice activity detector to take them as they are.
    spoken = [command for command in commands if command.duration > 2][:3]
    german = {"source_lang": "de", "target_lang": "de"}
    calls = [caller.start(command.path, language=language) for command in spoken for language in ("", "de")]
    assert [outcome(call) for call in calls] == [
        nemo_itself.transcribe(model, command.path, **prompt) for command in spoken for prompt in ({}, german)
    ]
    words = caller.transcribe(spoken[0].path, words=True).words
    assert [word.text for word in words] == spoken[0].text.split()

    for refused in ({"confidence": True}, {"prompt": "Write:"}, {"language": "fr"}, {"max_new_tokens": 5}):
        with pytest.raises(grpc.RpcError, match=r"canary-v2\.nemo") as failed:
            caller.transcribe(spoken[0].path, **refused)
        assert reason_of(failed.value) == "UNSUPPORTED_OPTION"

    lost.touch()
    assert outcome(caller.start(spoken[0].path)) == "[ENGINE_LOST]"
    assert server.process.wait(60) == 1
    assert "unspecified launch failure" in server.log.read_text()
    assert not list(server.registry.glob("*.json"))
    assert "Chunking" not in server.log.read_text() and "NeMo W" not in server.log.read_text()

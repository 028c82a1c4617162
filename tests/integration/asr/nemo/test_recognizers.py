"""The engines against NeMo itself, text by text."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch
from amela_asr.engine import Options, Recognition
from amela_asr.engines import nemo_recognizer, salm
from amela_asr.engines.batched import BatchedEngine
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.recognizer import Utterance
from amela_common.audio import Clip
from amela_common.errors import RequestError
from amela_common.server import Metrics, Runtime

from . import nemo_itself
from .conftest import RATE, Command
from .loaded import Loaded, batching

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = 64


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(models: Path, model_name: str) -> AsyncIterator[Loaded]:
    loaded = Loaded(models / model_name)
    try:
        await loaded.engine.load()
        yield loaded
    finally:
        await loaded.engine.close()


@pytest.fixture(scope="module")
def truth(models: Path, model_name: str, commands: list[Command]) -> list[str]:
    return [nemo_itself.transcribe(models / model_name, command.path) for command in commands]


async def test_the_tiny_models_understand_what_they_were_made_for(
    truth: list[str], commands: list[Command]
) -> None:
    assert sum(text == command.text for text, command in zip(truth, commands, strict=True)) >= 22


async def test_alone_every_clip_has_the_text_that_nemo_itself_gives(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    assert [(await loaded.recognize(command)).text for command in commands] == truth


async def test_from_many_callers_at_any_mix_the_texts_stay_and_the_model_too(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    before = loaded.weights()
    batches, items = loaded.batches()
    for _ in range(2):
        await loaded.recognize_from_many(CALLERS, commands, truth)

    more_batches, more_items = loaded.batches()
    assert more_items - items == 2 * CALLERS * 6
    assert more_items - items > 4 * (more_batches - batches)
    after = loaded.weights()
    assert any("running_" in name for name in before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not loaded.recognizer._model.training  # type: ignore[attr-defined]


async def test_bad_clips_among_good_ones_fail_for_their_own_reasons(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    def clip(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> Clip:
        return Clip(samples.astype(np.float32), RATE)

    not_a_number = commands[0].samples.copy()
    not_a_number[100] = np.nan
    bad = {
        "AUDIO_EMPTY": clip(np.zeros(0)),
        "AUDIO_TOO_SHORT": clip(np.full(RATE // 11, 0.1)),
        "AUDIO_NOT_FINITE": clip(not_a_number),
    }
    clips = [*bad.values(), *(Clip(command.samples, RATE) for command in commands)]
    outcomes = await asyncio.gather(
        *(loaded.engine.recognize(clip, Options(), object()) for clip in clips), return_exceptions=True
    )

    refused, heard = outcomes[: len(bad)], outcomes[len(bad) :]
    assert [error.reason for error in refused if isinstance(error, RequestError)] == list(bad)
    assert [recognition.text for recognition in heard if isinstance(recognition, Recognition)] == truth


async def test_a_prompt_with_a_token_of_the_models_own_fails_alone(
    loaded: Loaded, truth: list[str], commands: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not loaded.engine.capabilities.prompt:
        pytest.skip("this model takes no prompt")
    model = loaded.recognizer._model  # type: ignore[attr-defined]
    assert model.audio_locator_tag in loaded.recognizer._special_tokens  # type: ignore[attr-defined]
    monkeypatch.setattr(loaded.recognizer, "_special_tokens", {"[audio]"})
    asked = [Options(), Options(prompt="Write [audio]:"), Options()]
    batch = [
        Utterance(Clip(command.samples, RATE), options)
        for command, options in zip(commands, asked, strict=False)
    ]
    first, refused, third = loaded.recognizer.recognize(batch)
    alone = loaded.recognizer.recognize(batch[1:2])

    assert isinstance(first, Recognition) and isinstance(third, Recognition)
    assert [first.text, third.text] == [truth[0], truth[2]]
    for refusal in (refused, *alone):
        assert isinstance(refusal, RequestError)
        assert (refusal.reason, refusal.metadata) == ("INVALID_REQUEST", {"field": "options.prompt"})


@pytest.mark.parametrize("level", [0.0, 1.0, -0.25])
async def test_what_stands_still_is_silence_and_never_reaches_the_model(loaded: Loaded, level: float) -> None:
    before = loaded.batches()
    stuck = Clip(np.full(RATE, level, np.float32), RATE)

    assert (await loaded.engine.recognize(stuck, Options(), object())).text == ""
    assert loaded.batches() == before


async def test_words_have_the_texts_words_with_times_and_confidences_where_the_model_has_them(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    if not loaded.engine.capabilities.word_times:
        pytest.skip("this model has no word times")
    options = Options(words=True, confidence=True)
    for command, text in zip(commands, truth, strict=True):
        recognition = await loaded.recognize(command, options)

        assert recognition.text == text
        assert recognition.words is not None
        assert [word.text for word in recognition.words] == text.split()
        times = [time for word in recognition.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= command.duration + 0.08
        assert all(word.confidence is not None and 0 < word.confidence <= 1 for word in recognition.words)
        assert recognition.confidence is not None


async def test_bfloat16_changes_the_fingerprint_and_next_to_no_text(
    models: Path, model_name: str, loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    half = load_recognizer(str(models / model_name), offline=True, device="cpu", precision="bf16")
    outcomes = half.recognize([Utterance(Clip(command.samples, RATE), Options()) for command in commands])
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Recognition)]

    assert half.fingerprint != loaded.recognizer.fingerprint
    assert sum(text == said for text, said in zip(texts, truth, strict=True)) >= 20


async def test_the_fingerprint_is_the_same_wherever_the_model_lies(
    models: Path, model_name: str, loaded: Loaded, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / model_name
    source = models / model_name
    if source.is_dir():
        import shutil

        shutil.copytree(source, copy)
    else:
        copy.write_bytes(source.read_bytes())

    again = load_recognizer(str(copy), offline=True, device="cpu")
    assert again.fingerprint == loaded.recognizer.fingerprint


async def test_a_lost_device_fails_what_it_has_and_takes_the_server_with_it(
    loaded: Loaded, commands: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_lost_device(*audio: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    runtime = Runtime(Metrics())
    engine = BatchedEngine("again", lambda: loaded.recognizer, batching(), runtime)
    clips = [Clip(command.samples, RATE) for command in commands[:3]]
    try:
        await engine.load()
        for module in (nemo_recognizer, salm):
            monkeypatch.setattr(module, "padded", fake_lost_device)
        calls = [engine.recognize(clip, Options(), object()) for clip in clips]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(RequestError, match="ask another one") as refused:
            await engine.recognize(clips[0], Options(), object())
    finally:
        await engine.close()

    assert [error.reason for error in failed if isinstance(error, RequestError)] == ["ENGINE_LOST"] * 3
    assert refused.value.reason == "ENGINE_LOST"
    assert runtime.failure is not None and "illegal memory access" in runtime.failure
    assert runtime.stop.is_set()

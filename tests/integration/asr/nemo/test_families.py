"""Every family of NeMo's models and every way of decoding them, against NeMo's own `transcribe`."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.engines.loading import load_recognizer
from amela_asr.engines.recognizer import Utterance
from amela_common.audio import Clip
from amela_common.errors import ConfigError

from . import nemo_itself
from .conftest import RATE, Command
from .loaded import Loaded

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = Capabilities()
WORDS = Capabilities(word_times=True, word_confidence=True)
CAPABILITIES = {
    "rnnt": WORDS,
    "hybrid": WORDS,
    "tdt-greedy": WORDS,
    "ctc-beam": TEXT,
    "tdt-beam": TEXT,
    "rnnt-beams": TEXT,
    "canary": Capabilities(languages=("de", "en")),
    "canary-flash": Capabilities(word_times=True, languages=("de", "en")),
    "canary-v2": Capabilities(word_times=True, languages=("de", "en")),
}
WITH_TIMES = [family for family, capabilities in CAPABILITIES.items() if capabilities.word_times]
WITH_LANGUAGES = [family for family, capabilities in CAPABILITIES.items() if capabilities.languages]
CALLERS = 12


@pytest.fixture(scope="module", params=CAPABILITIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(families: dict[str, Path], family: str) -> AsyncIterator[Loaded]:
    loaded = Loaded(families[family])
    try:
        await loaded.engine.load()
        yield loaded
    finally:
        await loaded.engine.close()


@pytest.fixture(scope="module")
def truth(loaded: Loaded, commands: list[Command]) -> list[str]:
    return [nemo_itself.transcribe(loaded.path, command.path) for command in commands]


@pytest.fixture(scope="module")
def ctc_words(models: Path, commands: list[Command]) -> list[tuple[Word, ...]]:
    recognizer = load_recognizer(str(models / "ctc-bpe.nemo"), offline=True, device="cpu")
    options = Options(words=True)
    outcomes = recognizer.recognize([Utterance(Clip(command.samples, RATE), options) for command in commands])
    return [outcome.words or () for outcome in outcomes if isinstance(outcome, Recognition)]


def german(loaded: Loaded, commands: list[Command]) -> list[str]:
    return [
        nemo_itself.transcribe(loaded.path, command.path, source_lang="de", target_lang="de")
        for command in commands
    ]


async def test_it_says_what_the_family_can_do(loaded: Loaded, family: str) -> None:
    assert loaded.engine.capabilities == CAPABILITIES[family]
    assert loaded.engine.max_piece_seconds == (40.0 if family.startswith("canary") else 600.0)


async def test_alone_every_clip_has_the_text_that_nemo_itself_gives(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    assert sum(text == command.text for text, command in zip(truth, commands, strict=True)) >= 22
    assert [(await loaded.recognize(command)).text for command in commands] == truth


async def test_from_many_callers_at_any_mix_the_texts_stay_and_the_model_too(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    before = loaded.weights()
    batches, items = loaded.batches()
    await loaded.recognize_from_many(CALLERS, commands, truth)

    more_batches, more_items = loaded.batches()
    assert more_items - items > 2 * (more_batches - batches)
    after = loaded.weights()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [(await loaded.recognize(command)).text for command in commands[:6]] == truth[:6]


@pytest.mark.parametrize("family", WITH_TIMES, indirect=True)
async def test_words_make_up_the_text_and_lie_where_a_ctc_model_hears_them(
    loaded: Loaded, truth: list[str], commands: list[Command], ctc_words: list[tuple[Word, ...]]
) -> None:
    recognitions = await asyncio.gather(
        *(loaded.recognize(command, Options(words=True)) for command in commands)
    )

    assert [recognition.text for recognition in recognitions] == truth
    for recognition, command, heard in zip(recognitions, commands, ctc_words, strict=True):
        assert recognition.words is not None
        assert [word.text for word in recognition.words] == recognition.text.split()
        times = [time for word in recognition.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= command.duration + 0.08
        # What is shorter than a second Canary hears amid silence, which its times count.
        if loaded.engine.capabilities.languages and command.duration < 0.8:
            assert abs(recognition.words[0].start - heard[0].start) < 0.1


@pytest.mark.parametrize("family", WITH_LANGUAGES, indirect=True)
async def test_a_canary_writes_the_language_that_it_is_told_beside_others_that_are_told_another(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    expected = german(loaded, commands)
    assert not set(expected) & set(truth)

    await asyncio.gather(
        loaded.recognize_from_many(6, commands, truth),
        loaded.recognize_from_many(6, commands, truth, Options(language="EN")),
        loaded.recognize_from_many(6, commands, expected, Options(language="de")),
    )


@pytest.mark.parametrize("family", WITH_LANGUAGES, indirect=True)
async def test_in_bfloat16_next_to_no_text_changes(
    loaded: Loaded, truth: list[str], commands: list[Command]
) -> None:
    half = load_recognizer(str(loaded.path), offline=True, device="cpu", precision="bf16")
    outcomes = half.recognize([Utterance(Clip(command.samples, RATE), Options()) for command in commands])
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Recognition)]

    assert half.fingerprint != loaded.recognizer.fingerprint
    assert sum(text == said for text, said in zip(texts, truth, strict=True)) >= 22


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            "rnnt_bpe_models.EncDecRNNTBPEModel",
            "multitalker_asr_models.EncDecMultiTalkerRNNTBPEModel",
            "EncDecMultiTalkerRNNTBPEModel is none of NeMo's CTC, RNNT, TDT, hybrid or Canary models",
        ),
        ("EncDecRNNTBPEModel", "EncDecNoSuchModel", "NeMo cannot restore it.*EncDecNoSuchModel"),
        ("strategy: greedy_batch", "strategy: guess", "NeMo cannot restore it.*guess is not a valid"),
    ],
)
async def test_a_model_that_cannot_be_run_is_refused_with_the_cause(
    models: Path, tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    changed = tmp_path / "changed.nemo"
    with tarfile.open(models / "tdt.nemo") as source, tarfile.open(changed, "w") as target:
        for member in source.getmembers():
            content = source.extractfile(member)
            if content is None:
                continue
            data = content.read()
            if member.name.endswith("model_config.yaml"):
                assert before.encode() in data
                data = data.replace(before.encode(), after.encode())
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))

    with pytest.raises(ConfigError, match=complaint):
        load_recognizer(str(changed), offline=True, device="cpu")

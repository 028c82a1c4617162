"""The production engines behind a real `amela-asr`."""

import itertools
import random
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import soundfile
import soxr

from ....conftest import program
from ..calls import Caller, outcome, reason_of
from . import nemo_itself
from .conftest import RATE, Command

HOUR = 3600.0
TOO_FAST = "go seven right six"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def start(start_module_server: Any, models: Path, folder: Path) -> Any:
    def start(model: Path | str, *flags: str, **environment: str) -> Caller:
        command = ["amela-asr", "--model", str(model), "--device", "cpu"]
        roots = ["--audio-root", str(models), "--audio-root", str(folder)]
        return Caller(start_module_server([*command, *roots, *flags], OMP_NUM_THREADS="1", **environment))

    return start


@pytest.fixture(scope="module")
def tdt(start: Any, models: Path) -> Caller:
    caller: Caller = start(models / "tdt.nemo", "--queue", "200")
    return caller


@pytest.fixture(scope="module")
def ctc(start: Any, models: Path) -> Caller:
    caller: Caller = start(models / "ctc-bpe.nemo")
    return caller


@pytest.fixture(scope="module")
def salm(start: Any, models: Path) -> Caller:
    caller: Caller = start(models / "salm")
    return caller


def metric(caller: Caller, name: str) -> float:
    url = f"http://127.0.0.1:{caller.server.registration['metricsPort']}/metrics"
    lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_info_says_what_each_family_can_do(tdt: Caller, salm: Caller) -> None:
    words, prompts = tdt.info(), salm.info()

    assert (words.server.model.engine, words.server.model.name) == ("nemo", "tdt.nemo")
    assert words.capabilities.word_times and words.capabilities.word_confidence
    assert not (
        words.capabilities.prompt or words.capabilities.max_new_tokens or words.capabilities.languages
    )
    assert (prompts.server.model.engine, prompts.server.model.name) == ("salm", "salm")
    assert prompts.capabilities.prompt and prompts.capabilities.max_new_tokens
    assert list(prompts.capabilities.languages) == ["en"]
    assert not (prompts.capabilities.word_times or prompts.capabilities.word_confidence)


def test_a_server_says_how_much_one_of_its_batches_holds(tdt: Caller) -> None:
    capacity = tdt.info().server.capacity

    assert capacity.batch_seconds > 0
    assert tdt.server.registration["capacity"]["batchSeconds"] == capacity.batch_seconds
    assert "gpu" not in tdt.server.registration


@pytest.mark.parametrize("options", [{"prompt": "Write:"}, {"language": "en"}, {"max_new_tokens": 5}])
def test_what_a_transducer_cannot_do_is_refused(
    tdt: Caller, commands: list[Command], options: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError, match=r"tdt\.nemo") as refused:
        tdt.transcribe(commands[0].path, **options)
    assert reason_of(refused.value) == "UNSUPPORTED_OPTION"


@pytest.mark.parametrize("options", [{"words": True}, {"confidence": True}, {"language": "de"}])
def test_what_a_language_model_cannot_do_is_refused(
    salm: Caller, commands: list[Command], options: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError, match="salm") as refused:
        salm.transcribe(commands[0].path, **options)
    assert reason_of(refused.value) == "UNSUPPORTED_OPTION"


def test_a_prompt_and_a_language_reach_the_language_model(salm: Caller, commands: list[Command]) -> None:
    command = commands[9]
    text = salm.transcribe(command.path).text

    assert salm.transcribe(command.path, language="en").text == text == command.text
    assert salm.transcribe(command.path, language="EN").text == text
    prompted = [salm.transcribe(command.path, prompt="yes " * 60).text for command in commands]
    assert prompted != [salm.transcribe(command.path).text for command in commands]


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "x" * 4_001},
        {"prompt": "Listen: <|audioplaceholder|> and <|audioplaceholder|>"},
        {"max_new_tokens": 4_097},
    ],
)
def test_what_would_hold_up_the_language_model_is_refused(
    salm: Caller, commands: list[Command], options: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        salm.transcribe(commands[9].path, **options)
    assert reason_of(refused.value) == "INVALID_REQUEST"


def test_an_output_that_does_not_end_is_told_as_such(salm: Caller, commands: list[Command]) -> None:
    with pytest.raises(grpc.RpcError, match="did not end within 2 tokens"):
        salm.transcribe(commands[9].path, max_new_tokens=2)


def test_every_bad_file_has_its_own_reason_and_every_good_one_its_text(
    tdt: Caller, commands: list[Command], folder: Path
) -> None:
    spoken = commands[9]
    truncated = folder / "truncated.flac"
    truncated.write_bytes(spoken.path.read_bytes()[:-12_000])
    empty = folder / "empty.wav"
    empty.touch()
    not_finite = spoken.samples.copy()
    not_finite[10_000] = np.nan
    soundfile.write(folder / "nan.wav", not_finite, RATE, subtype="FLOAT")
    soundfile.write(folder / "absurd.wav", spoken.samples * 1e20, RATE, subtype="FLOAT")
    silence = folder / "silence.wav"
    soundfile.write(silence, np.zeros(3 * RATE), RATE)
    short = folder / "short.wav"
    soundfile.write(short, spoken.samples[8000:8800], RATE)
    stuck = folder / "stuck.wav"
    soundfile.write(stuck, np.ones(3 * RATE), RATE)
    soundfile.write(folder / "int16.wav", spoken.samples, RATE, subtype="PCM_16")
    other_rate = soxr.resample(spoken.samples, RATE, 44_100)
    soundfile.write(folder / "stereo.wav", np.stack([other_rate, other_rate], axis=1), 44_100)
    expected = {
        truncated: "[AUDIO_TRUNCATED]",
        empty: "[AUDIO_EMPTY]",
        folder / "nan.wav": "[AUDIO_NOT_FINITE]",
        folder / "absurd.wav": "[AUDIO_NOT_FINITE]",
        folder / "missing.wav": "[AUDIO_NOT_FOUND]",
        silence: "",
        short: "",
        stuck: "",
        folder / "int16.wav": spoken.text,
        folder / "stereo.wav": spoken.text,
        **{command.path: command.text for command in commands},
    }
    alone = {command.path: tdt.transcribe(command.path).text for command in commands}
    calls = {path: tdt.start(path) for path in expected}

    assert {path: outcome(call) for path, call in calls.items()} == {**expected, **alone}


def test_calls_of_many_share_batches(tdt: Caller, commands: list[Command]) -> None:
    batches, clips = metric(tdt, "amela_batch_items_count"), metric(tdt, "amela_batch_items_sum")
    texts = [command.text for command in commands] * 4
    calls = [tdt.start(command.path) for command in commands * 4]
    right = sum(outcome(call) == text for call, text in zip(calls, texts, strict=True))

    assert right >= len(calls) - 4
    more = metric(tdt, "amela_batch_items_sum") - clips
    assert more == len(calls)
    assert more >= 3 * (metric(tdt, "amela_batch_items_count") - batches)


def test_an_hour_of_speech_is_transcribed_word_for_word_with_true_times_in_bounded_memory(
    ctc: Caller, commands: list[Command], models: Path, folder: Path, record_property: Any
) -> None:
    alone = {command.path: timed(ctc.transcribe(command.path, words=True)) for command in commands}
    record(folder / "minutes.flac", commands, 5 * 60)
    spoken = record(folder / "hour.flac", commands, HOUR)
    processes = [ctc.server.process.pid]
    processes += [child.pid for child in psutil.Process(processes[0]).children(recursive=True)]
    ctc.transcribe(folder / "minutes.flac", words=True)
    before = sum(map(_peak_memory, processes))

    response = ctc.transcribe(folder / "hour.flac", timeout=600, words=True)
    grown = sum(map(_peak_memory, processes)) - before

    print(f"peak memory: {before >> 20} MiB after five minutes, {grown >> 20} MiB more after an hour")
    record_property("peak_memory_growth_mib", grown / 2**20)
    assert response.audio_duration.ToTimedelta().total_seconds() >= HOUR
    assert not response.failures
    assert len(response.segments) == len(spoken)
    heard = iter(timed(response))
    texts = []
    for segment, (at, command) in zip(response.segments, spoken, strict=True):
        texts.append(segment.text)
        words = [next(heard) for _ in segment.text.split()]
        if command.text == TOO_FAST:
            # What the model makes of this one depends on the moment at which it begins to hear it.
            start, end = (time.ToTimedelta().total_seconds() for time in (segment.start, segment.end))
            samples, _ = soundfile.read(
                folder / "hour.flac", start=round(start * RATE), stop=round(end * RATE), dtype="float32"
            )
            assert segment.text == nemo_itself.transcribe_samples(models / "ctc-bpe.nemo", samples)
            assert all(at - 0.1 <= word[1] < word[2] <= at + command.duration + 0.1 for word in words)
            continue
        truth = [(text, at + start, at + end) for text, start, end in alone[command.path]]
        assert [word[0] for word in words] == [word[0] for word in truth] == segment.text.split()
        for (_, start, end), (_, true_start, true_end) in zip(words, truth, strict=True):
            assert abs(start - true_start) <= 0.1 and abs(end - true_end) <= 0.1
    assert response.text == " ".join(texts)
    assert next(heard, None) is None
    # The samples alone are 230 MB.
    assert grown < 100 * 2**20


def timed(response: Any) -> list[tuple[str, float, float]]:
    """Take a response's words with their times in seconds."""
    return [
        (word.text, word.start.ToTimedelta().total_seconds(), word.end.ToTimedelta().total_seconds())
        for word in response.words
    ]


def record(path: Path, commands: list[Command], duration: float) -> list[tuple[float, Command]]:
    """Write commands with pauses between them for so long; tell where each one starts."""
    pause = np.zeros(round(1.4 * RATE), np.float32)
    spoken = []
    with soundfile.SoundFile(path, "w", RATE, 1) as recording:
        for command in itertools.cycle(commands):
            recording.write(pause)
            if recording.frames >= duration * RATE:
                return spoken
            spoken.append((recording.frames / RATE, command))
            recording.write(command.samples)
    raise AssertionError("a cycle has no end")


def _peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_pieces_of_over_40_s_of_speech_are_all_heard(
    tdt: Caller, commands: list[Command], folder: Path
) -> None:
    gap = np.zeros(round(0.4 * RATE), np.float32)
    parts = [part for command in commands * 2 for part in (command.samples, gap)]
    path = folder / "long.wav"
    soundfile.write(path, np.concatenate(parts), RATE)
    response = tdt.transcribe(path)

    assert response.audio_duration.seconds > 60
    assert len(response.segments) > 1
    assert all(segment.text for segment in response.segments)
    assert response.text == " ".join(segment.text for segment in response.segments)
    said = sum(len(command.text.split()) for command in commands * 2)
    assert abs(len(response.text.split()) - said) <= 0.1 * said


# Chosen because a word lies on a cut: clipped by one side, or placed a little differently by each.
@pytest.mark.parametrize("seed", [2, 10])
def test_speech_without_a_pause_is_transcribed_word_for_word_with_word_times_and_without(
    tdt: Caller, commands: list[Command], folder: Path, seed: int
) -> None:
    choose, parts, said = random.Random(seed), [], []
    while sum(map(len, parts)) < 115 * RATE:
        command = choose.choice(commands)
        loud = np.flatnonzero(np.abs(command.samples) > 0.02)
        parts += [command.samples[max(0, loud[0] - 400) : loud[-1] + 800], np.zeros(800, np.float32)]
        said.append(command.text)
    path = folder / "no pause.flac"
    soundfile.write(path, np.concatenate(parts), RATE)
    texts = [tdt.transcribe(path, words=words).text for words in (False, True)]

    assert texts == [" ".join(said)] * 2


def test_a_staged_model_needs_no_network(start: Any, models: Path, tdt: Caller, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    subprocess.run(
        [program("amela-asr"), "stage", str(models / "tdt.nemo"), "--to", str(staged)],
        check=True,
        timeout=120,
    )
    offline = start(staged, HF_ENDPOINT="http://127.0.0.1:9")

    assert offline.info().server.model.fingerprint == tdt.info().server.model.fingerprint
    offline.server.terminate()


def test_a_checkpoint_that_cannot_work_is_one_line_and_exit_code_2(models: Path, tmp_path: Path) -> None:
    from ....models.nemo_tiny.derived import with_decoding

    broken = tmp_path / "broken.nemo"
    broken.write_bytes((models / "tdt.nemo").read_bytes()[:500_000])
    folder = tmp_path / "salm"
    shutil.copytree(models / "salm", folder)
    (folder / "tokenizer.json").unlink()
    # A library that is not in the lock.
    beam = {"beam_size": 4, "beam_alpha": 1.0, "beam_beta": 0.0, "return_best_hypothesis": True}
    decoding = {"strategy": "pyctcdecode", "beam": {**beam, "kenlm_path": None}}
    foreign = with_decoding(models / "ctc-char.nemo", tmp_path / "foreign.nemo", decoding)
    for model, said in (
        (broken, "cannot restore it"),
        (folder, "the tokenizer's vocabulary"),
        (foreign, "not here (Could not load `pyctcdecode`"),
    ):
        ended = subprocess.run(
            [program("amela-asr"), "--model", str(model), "--registry", str(tmp_path / "registry")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 2
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("amela-asr: --model") and model.name in last and said in last

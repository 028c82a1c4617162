"""Real speech through a real `amela-asr` with the embedded engine."""

import re
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import jiwer
import numpy as np
import pytest
import soundfile
from amela.asr.v1 import asr_pb2, asr_pb2_grpc
from amela.common.v1.audio_pb2 import Audio
from amela_asr.cutting import Cut, Cutter, Plan, Survey
from amela_asr.engines.pocketsphinx import Recognizer
from amela_common.audio import AudioLimits, AudioSource, Clip
from amela_common.durations import from_duration, to_duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from .conftest import RATE, Recording, Sentence, record

WORDS = asr_pb2.TranscribeOptions(words=True, confidence=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(start_module_server: Any, folder: Path, examples: Path) -> Any:
    command = ["amela-asr", "--workers", "2", "--audio-root", str(folder), "--audio-root", str(examples)]
    return start_module_server([*command, "--max-audio-seconds", "300"])


@pytest.fixture(scope="module")
def stub(server: Any) -> Iterator[asr_pb2_grpc.AsrServiceStub]:
    with server.channel() as channel:
        yield asr_pb2_grpc.AsrServiceStub(channel)


@pytest.fixture(scope="module")
def transcribe(server: Any, stub: Any) -> Any:
    def transcribe(
        path: Path | str | None = None,
        options: asr_pb2.TranscribeOptions | None = None,
        start: float | None = None,
        duration: float | None = None,
        **audio: Any,
    ) -> asr_pb2.TranscribeResponse:
        request = asr_pb2.TranscribeRequest(audio=Audio(**audio), options=options)
        if path is not None:
            request.audio.path = str(path)
        if start is not None:
            request.audio.start.CopyFrom(to_duration(start))
        if duration is not None:
            request.audio.duration.CopyFrom(to_duration(duration))
        response: asr_pb2.TranscribeResponse = stub.Transcribe(request, metadata=server.metadata, timeout=120)
        return response

    return transcribe


@pytest.fixture(scope="module")
def transcripts(transcribe: Any, sentences: list[Sentence]) -> list[asr_pb2.TranscribeResponse]:
    with ThreadPoolExecutor(len(sentences)) as callers:
        return list(callers.map(lambda sentence: transcribe(sentence.path, WORDS), sentences))


@pytest.fixture(scope="module")
def long(folder: Path, sentences: list[Sentence]) -> Recording:
    recording = record(folder / "long.wav", sentences, pause=6.5)
    assert recording.duration > 60
    return recording


@pytest.fixture(scope="module")
def long_transcript(transcribe: Any, long: Recording) -> asr_pb2.TranscribeResponse:
    response: asr_pb2.TranscribeResponse = transcribe(long.path, WORDS)
    return response


def wer(reference: list[str], heard: list[str]) -> float:
    return float(jiwer.wer(reference, heard))


def test_get_info_says_what_runs_and_what_it_can_give(server: Any, stub: Any) -> None:
    info = stub.GetInfo(asr_pb2.GetInfoRequest(), metadata=server.metadata, timeout=10)

    assert (info.server.model.engine, info.server.model.name) == ("pocketsphinx", "en-us")
    assert re.fullmatch("[0-9a-f]{16}", info.server.model.fingerprint)
    assert re.fullmatch("[0-9a-f]{16}", info.detector_fingerprint)
    assert info.server.model.fingerprint == server.registration["model"]["fingerprint"]
    assert info.capabilities.word_times and info.capabilities.word_confidence
    assert not info.capabilities.prompt and not info.capabilities.max_new_tokens
    assert info.sample_rate_hz == RATE
    assert from_duration(info.max_piece) == 30
    assert from_duration(info.server.limits.max_audio) == 300
    assert info.server.capacity.concurrency >= 2


def test_read_speech_is_recognised(
    sentences: list[Sentence], transcripts: list[asr_pb2.TranscribeResponse]
) -> None:
    error = wer([sentence.text for sentence in sentences], [transcript.text for transcript in transcripts])

    print(f"WER of the five sentences: {error:.3f}")
    assert error <= 0.35


def test_words_are_those_of_the_text_in_order_within_the_audio(
    sentences: list[Sentence], transcripts: list[asr_pb2.TranscribeResponse]
) -> None:
    for sentence, transcript in zip(sentences, transcripts, strict=True):
        assert [word.text for word in transcript.words] == transcript.text.split()
        times = [from_duration(time) for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0 and times[-1] <= sentence.duration
        assert from_duration(transcript.audio_duration) == pytest.approx(sentence.duration)


def test_confidences_come_when_asked_for(transcripts: list[asr_pb2.TranscribeResponse]) -> None:
    for transcript in transcripts:
        scored: list[Any] = [*transcript.words, *transcript.segments]
        assert all(item.HasField("confidence") and 0 <= item.confidence <= 1 for item in scored)


def test_without_options_there_is_text_alone(
    transcribe: Any, sentences: list[Sentence], transcripts: list[asr_pb2.TranscribeResponse]
) -> None:
    plain = transcribe(sentences[1].path)

    assert plain.text == transcripts[1].text
    assert not plain.words
    assert not any(segment.HasField("confidence") for segment in plain.segments)
    assert plain.model == transcripts[1].model


def test_audio_in_the_request_is_heard_as_the_same_audio_in_a_file(
    transcribe: Any, sentences: list[Sentence], transcripts: list[asr_pb2.TranscribeResponse]
) -> None:
    sent = transcribe(content=sentences[1].path.read_bytes(), options=WORDS)

    assert sent == transcripts[1]


def test_every_sentence_of_a_long_recording_is_found_where_it_was_said(
    long: Recording, long_transcript: asr_pb2.TranscribeResponse
) -> None:
    heard: list[list[str]] = [[] for _ in long.sentences]
    for word in long_transcript.words:
        middle = (from_duration(word.start) + from_duration(word.end)) / 2
        [index] = [
            index
            for index, (sentence, start) in enumerate(zip(long.sentences, long.starts, strict=True))
            if start <= middle <= start + sentence.duration
        ]
        heard[index].append(word.text)

    texts = [" ".join(words) for words in heard]
    assert all(texts)
    assert " ".join(texts) == long_transcript.text
    assert wer([sentence.text for sentence in long.sentences], texts) <= 0.35


def test_a_long_recording_is_the_concatenation_of_its_pieces(
    long: Recording, long_transcript: asr_pb2.TranscribeResponse, folder: Path
) -> None:
    cutter = Cutter(AudioLimits(roots=(str(folder),)), RATE, max_piece=30.0)
    source = AudioSource(path=str(long.path))
    plan = list(cutter(Survey(source)))[-1]
    assert isinstance(plan, Plan)
    clips = [clip for clip in cutter(Cut(source, plan.pieces)) if isinstance(clip, Clip)]
    segments = long_transcript.segments
    shortest = sorted(range(len(clips)), key=lambda index: clips[index].duration)[:2]
    recognizer = Recognizer()

    assert [from_duration(segment.start) for segment in segments] == [
        pytest.approx(piece.start) for piece in plan.pieces
    ]
    assert long_transcript.text == " ".join(segment.text for segment in segments)
    for index in shortest:
        [alone] = recognizer(clips[index].samples)
        assert segments[index].text == alone.text


def test_times_of_a_stretch_count_from_its_start(
    transcribe: Any, long: Recording, long_transcript: asr_pb2.TranscribeResponse
) -> None:
    start = long.starts[1] - 1
    stretch = transcribe(long.path, WORDS, start=start, duration=long.sentences[1].duration + 2)

    whole = [from_duration(word.start) for word in long_transcript.words]
    expected = [time - start for time in whole if start < time < start + long.sentences[1].duration + 2]
    assert [from_duration(word.start) for word in stretch.words] == pytest.approx(expected, abs=0.1)
    assert from_duration(stretch.audio_duration) == pytest.approx(long.sentences[1].duration + 2)


def test_silence_is_no_speech(transcribe: Any, folder: Path) -> None:
    silence = transcribe(record(folder / "silence.wav", [], pause=3).path, WORDS)

    assert silence.no_speech
    assert (silence.text, len(silence.segments), len(silence.words)) == ("", 0, 0)
    assert from_duration(silence.audio_duration) == 3
    assert from_duration(silence.speech_duration) == 0


def test_eight_callers_at_once_get_what_one_gets(transcribe: Any, sentences: list[Sentence]) -> None:
    def ask(_: int) -> asr_pb2.TranscribeResponse:
        response: asr_pb2.TranscribeResponse = transcribe(sentences[1].path, WORDS, duration=1.2)
        return response

    alone = ask(0)
    with ThreadPoolExecutor(8) as callers:
        together = list(callers.map(ask, range(8)))

    assert alone.text
    assert together == [alone] * 8


def test_audio_is_counted_by_its_length(
    server: Any, transcripts: list[asr_pb2.TranscribeResponse], sentences: list[Sentence]
) -> None:
    url = f"http://127.0.0.1:{server.registration['metricsPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as page:
        metrics = page.read().decode()

    [counted] = re.findall(r'^amela_audio_seconds_total\{method="Transcribe"\} (\S+)$', metrics, re.MULTILINE)
    assert float(counted) >= sum(sentence.duration for sentence in sentences) - 0.001


def refusal(call: Any, *arguments: Any, **audio: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments, **audio)
    status = rpc_status.from_call(refused.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return refused.value.code(), info


def truncated_flac(path: Path, sentence: Sentence) -> None:
    path.write_bytes(sentence.path.read_bytes()[:20_000])


def not_a_number(path: Path, sentence: Sentence) -> None:
    samples = sentence.samples.copy()
    samples[1000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT", format="WAV")


def headers_only(path: Path, sentence: Sentence) -> None:
    soundfile.write(path, sentence.samples[:0], RATE, format="WAV")


BAD_AUDIO: dict[str, tuple[Callable[[Path, Sentence], object], str]] = {
    "missing": (lambda path, sentence: None, "AUDIO_NOT_FOUND"),
    "folder": (lambda path, sentence: path.mkdir(), "AUDIO_NOT_A_FILE"),
    "empty": (lambda path, sentence: path.write_bytes(b""), "AUDIO_EMPTY"),
    "headers only": (headers_only, "AUDIO_EMPTY"),
    "truncated": (truncated_flac, "AUDIO_TRUNCATED"),
    "not a number": (not_a_number, "AUDIO_NOT_FINITE"),
    "text": (lambda path, sentence: path.write_text(sentence.text), "AUDIO_UNSUPPORTED"),
    "link outside": (lambda path, sentence: path.symlink_to("/etc/passwd"), "PATH_FORBIDDEN"),
}


@pytest.mark.parametrize("kind", BAD_AUDIO)
def test_bad_audio_has_its_own_reason(
    transcribe: Any, folder: Path, sentences: list[Sentence], kind: str
) -> None:
    make, reason = BAD_AUDIO[kind]
    make(folder / kind, sentences[0])

    assert refusal(transcribe, folder / kind)[1].reason == reason


def test_audio_beyond_the_limit_is_refused(transcribe: Any, folder: Path) -> None:
    path = folder / "too-long.wav"
    soundfile.write(path, np.zeros(301 * 8000, np.int16), 8000)

    assert refusal(transcribe, path)[1].reason == "AUDIO_TOO_LONG"


def test_a_start_beyond_the_end_is_out_of_range(transcribe: Any, sentences: list[Sentence]) -> None:
    code, info = refusal(transcribe, sentences[1].path, start=10.0)

    assert (code, info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "AUDIO_OUT_OF_RANGE")


@pytest.mark.parametrize("arguments", [(), ("relative.wav",), ("/a\0b",)])
def test_a_request_without_proper_audio_is_invalid(transcribe: Any, arguments: tuple[str, ...]) -> None:
    code, info = refusal(transcribe, *arguments)

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert info.metadata["field"].startswith("audio")


@pytest.mark.parametrize(
    "options",
    [
        asr_pb2.TranscribeOptions(prompt="Transcribe:"),
        asr_pb2.TranscribeOptions(language="fr"),
        asr_pb2.TranscribeOptions(max_new_tokens=5),
    ],
)
def test_what_pocketsphinx_cannot_do_is_refused(
    transcribe: Any, sentences: list[Sentence], options: asr_pb2.TranscribeOptions
) -> None:
    code, info = refusal(transcribe, sentences[1].path, options)

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_OPTION")

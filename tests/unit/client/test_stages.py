import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from amela.asr.v1.asr_pb2 import TranscribeRequest
from amela.vad.v1.vad_pb2 import DetectRequest
from amela_client.manifest import Entry, Manifest
from amela_client.requests import voice_message
from amela_client.results import (
    Model,
    PieceFailure,
    SpeechSegment,
    SpeechStatistics,
    Transcript,
    TranscriptSegment,
    VoiceActivity,
    Word,
)
from amela_client.stages import Transcription, VoiceDetection

MODEL = Model("pocketsphinx", "en-us", "0123456789abcdef", "cpu", ("for trying things out",))
NAMED = {"engine": "pocketsphinx", "name": "en-us", "fingerprint": "0123456789abcdef"}
TRANSCRIPT = Transcript(
    text="he was not",
    segments=(TranscriptSegment("he was not", 0.1, 1.30000001, 0.5),),
    words=(Word("he", 0.1, 0.2, 0.98765), Word("was not", 0.2, 1.3, None)),
    audio_seconds=1.5,
    speech_seconds=1.2,
    no_speech=False,
    failures=(),
    model=MODEL,
)
ACTIVITY = VoiceActivity(
    segments=(SpeechSegment(0.0, 1.5),),
    statistics=SpeechStatistics(1.5, 1.5, 1.5, 0.0, 0.0, 0.0, 1.0),
    audio_seconds=1.5,
    no_speech=False,
    long_audio=False,
    split_points=(),
    frame_probabilities=None,
    model=MODEL,
)


EntryOf = Callable[..., Entry]


@pytest.fixture
def entry_of(tmp_path: Path) -> EntryOf:
    def make(**fields: object) -> Entry:
        path = tmp_path / "data.json"
        path.write_text(json.dumps({"audio_filepath": "/a.wav"} | fields) + "\n")
        entry = next(iter(Manifest(path)))
        assert isinstance(entry, Entry)
        return entry

    return make


def transcribe(entry: Entry, **options: object) -> TranscribeRequest:
    request = Transcription(**options).request(entry)  # type: ignore[arg-type]
    assert isinstance(request, TranscribeRequest)
    return request


def test_a_duration_without_an_offset_asks_for_the_whole_recording(entry_of: EntryOf) -> None:
    audio = transcribe(entry_of(duration=3.2)).audio
    assert audio.path == "/a.wav"
    assert not audio.HasField("start") and not audio.HasField("duration")


def test_an_offset_asks_for_a_stretch(entry_of: EntryOf) -> None:
    audio = transcribe(entry_of(duration=3.25, offset=60)).audio
    assert (audio.start.seconds, audio.duration.seconds, audio.duration.nanos) == (60, 3, 250_000_000)
    assert not transcribe(entry_of(offset=60)).audio.HasField("duration")


def test_options_reach_the_request(entry_of: EntryOf) -> None:
    request = transcribe(entry_of(), words=True, confidence=True, channel=1)
    assert (request.options.words, request.options.confidence, request.audio.channel) == (True, True, 1)
    told = transcribe(entry_of(), language="fr-CA", prompt="Say it again:", max_new_tokens=7).options
    assert (told.language, told.prompt, told.max_new_tokens) == ("fr-CA", "Say it again:", 7)
    detect = VoiceDetection(threshold=0.25, merge_gap=0.5, min_speech=0.1, padding=0.2).request(entry_of())
    assert isinstance(detect, DetectRequest)
    assert detect.segmentation.threshold == 0.25
    assert detect.segmentation.merge_gap.nanos == 500_000_000
    assert not detect.audio.HasField("channel")


@pytest.mark.parametrize("name", ["language", "prompt"])
def test_a_text_that_no_request_can_carry_is_named(entry_of: EntryOf, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} 'caf\\udce9' is not valid Unicode"):
        transcribe(entry_of(), **{name: "caf\udce9"})


@pytest.mark.parametrize("part", ["speaker", "style"])
def test_a_voice_that_no_request_can_carry_is_named(part: str) -> None:
    with pytest.raises(ValueError, match=rf"^{part} 'caf\\udce9' is not valid Unicode"):
        voice_message(**{part: "caf\udce9"})


def test_what_is_not_asked_for_is_left_to_the_server(entry_of: EntryOf) -> None:
    detect = VoiceDetection().request(entry_of())
    assert isinstance(detect, DetectRequest)
    assert not detect.segmentation.HasField("threshold")
    assert not detect.segmentation.HasField("padding")
    assert not transcribe(entry_of()).options.ByteSize()


@pytest.mark.parametrize(
    ("fields", "done"),
    [
        ({}, False),
        ({"text": None}, False),
        ({"text": ""}, False),
        ({"text": "he was"}, True),
        ({"text": 0}, True),
        ({"text_ref": "he was"}, False),
    ],
)
def test_an_entry_with_a_text_is_done_unless_forced(
    entry_of: EntryOf, fields: dict[str, object], done: bool
) -> None:
    entry = entry_of(**fields)
    assert Transcription().present(entry) == ({} if done else None)
    assert Transcription(force=True).present(entry) is None
    assert VoiceDetection().present(entry) is None


def test_force_does_not_make_it_another_run_and_what_changes_results_does() -> None:
    assert Transcription(force=True).options == Transcription().options
    changed = [
        Transcription(words=True),
        Transcription(segments=True),
        Transcription(channel=0),
        Transcription(language="en"),
        Transcription(prompt="Say it again:"),
        Transcription(max_new_tokens=7),
    ]
    assert all(stage.options != Transcription().options for stage in changed)
    assert VoiceDetection(padding=0.0).options != VoiceDetection().options


def test_a_line_gains_the_text_and_the_model_and_only_what_was_asked_for(entry_of: EntryOf) -> None:
    assert Transcription().fields(entry_of(), TRANSCRIPT) == {"text": "he was not", "asr_model": NAMED}
    fields = Transcription(words=True, segments=True, confidence=True).fields(entry_of(), TRANSCRIPT)
    assert fields["words"] == [
        {"text": "he", "start": 0.1, "end": 0.2, "confidence": 0.9877},
        {"text": "was not", "start": 0.2, "end": 1.3},
    ]
    assert fields["text_segments"] == [{"text": "he was not", "start": 0.1, "end": 1.3, "confidence": 0.5}]


def test_a_text_that_lacks_a_piece_says_so(entry_of: EntryOf) -> None:
    failure = PieceFailure(30.0, 60.0, "OUT_OF_MEMORY", "no room")
    fields = Transcription().fields(entry_of(), replace(TRANSCRIPT, failures=(failure,)))
    assert fields["text_gaps"] == [
        {"start": 30.0, "end": 60.0, "reason": "OUT_OF_MEMORY", "message": "no room"}
    ]


def test_a_line_with_voice_activity_works_in_a_manifest_anywhere(entry_of: EntryOf, tmp_path: Path) -> None:
    gained = VoiceDetection().fields(entry_of(audio_filepath="a.wav"), ACTIVITY)
    assert gained["audio_filepath"] == str(tmp_path / "a.wav")
    assert gained["duration"] == 1.5
    assert gained["vad_model"] == NAMED


def test_what_a_manifest_says_about_a_recording_is_not_changed_by_voice_activity(entry_of: EntryOf) -> None:
    gained = VoiceDetection().fields(entry_of(duration=1.4), ACTIVITY)
    assert not gained.keys() & {"audio_filepath", "duration"}
    assert gained["speech_statistics"]["duration"] == 1.5  # type: ignore[index]

"""Requests, made from what callers have: a path or bytes, seconds, options."""

import os
from collections.abc import Sequence
from pathlib import Path

from amela.asr.v1.asr_pb2 import TranscribeOptions, TranscribeRequest
from amela.common.v1.audio_pb2 import Audio
from amela.sts.v1.sts_pb2 import EncodeRequest, ResynthesizeRequest, SynthesizeRequest, Voice
from amela.vad.v1.vad_pb2 import DetectRequest, SegmentationOptions
from google.protobuf.duration_pb2 import Duration

AudioInput = str | os.PathLike[str] | bytes
"""A path on the file system that client and servers share, or a whole encoded file."""
VoicePart = str | int | None
"""A speaker or a style: its name, its index, or the first one."""


def transcribe_request(
    audio: AudioInput,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    words: bool = False,
    confidence: bool = False,
    language: str = "",
    prompt: str = "",
    max_new_tokens: int = 0,
) -> TranscribeRequest:
    """Make the request that transcribes one recording.

    Parameters
    ----------
    audio
        A relative path is taken against the working folder.
    start, duration
        Stretch to take, in seconds. Default: all of it.
    channel
        Channel to take, from 0. Default: the mean of all.
    words, confidence
        Whether to answer with words and their times, and with confidences.
    language
        BCP 47 tag. Empty: the model's own choice.
    prompt, max_new_tokens
        For models that take them. Empty and 0: the model's defaults.

    Raises
    ------
    ValueError
        If a time, the channel, a text or the number of tokens cannot be sent.
    """
    return TranscribeRequest(
        audio=audio_message(audio, start=start, duration=duration, channel=channel),
        options=TranscribeOptions(
            words=words,
            confidence=confidence,
            language=_text("language", language),
            prompt=_text("prompt", prompt),
            max_new_tokens=max_new_tokens,
        ),
    )


def detect_request(
    audio: AudioInput,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    threshold: float | None = None,
    merge_gap: float | None = None,
    min_speech: float | None = None,
    padding: float | None = None,
    frame_probabilities: bool = False,
) -> DetectRequest:
    """Make the request that finds the speech in one recording.

    Parameters
    ----------
    audio, start, duration, channel
        As for `transcribe_request`.
    threshold, merge_gap, min_speech, padding
        As for `segmentation_options`.
    frame_probabilities
        Whether to answer with the probability of each frame.

    Raises
    ------
    ValueError
        If a time or the channel cannot be sent.
    """
    return DetectRequest(
        audio=audio_message(audio, start=start, duration=duration, channel=channel),
        segmentation=segmentation_options(threshold, merge_gap, min_speech, padding),
        frame_probabilities=frame_probabilities,
    )


def encode_request(
    audio: AudioInput,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    deduplicate: bool = False,
    dense_features: bool = False,
) -> EncodeRequest:
    """Make the request that turns one recording into units.

    Parameters
    ----------
    audio, start, duration, channel
        As for `transcribe_request`.
    deduplicate
        Whether to keep one unit for each run of equal ones.
    dense_features
        Whether to answer with the features that the units come from as well.

    Raises
    ------
    ValueError
        If a time or the channel cannot be sent.
    """
    return EncodeRequest(
        audio=audio_message(audio, start=start, duration=duration, channel=channel),
        deduplicate=deduplicate,
        dense_features=dense_features,
    )


def synthesize_request(
    units: Sequence[int],
    *,
    durations: Sequence[int] | None = None,
    predict_durations: bool = False,
    speaker: VoicePart = None,
    style: VoicePart = None,
) -> SynthesizeRequest:
    """Make the request that turns units into audio.

    Parameters
    ----------
    units
        Ids from 0 to the model's vocabulary - 1.
    durations
        How many frames each of them lasts.
    predict_durations
        Whether the vocoder shall say that instead.
    speaker, style
        By name or by index. Default: the first.

    Raises
    ------
    ValueError
        If a number or a name cannot be sent.
    """
    return SynthesizeRequest(
        units=units,
        durations=durations,
        predict_durations=predict_durations,
        voice=voice_message(speaker, style),
    )


def resynthesize_request(
    audio: AudioInput,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    speaker: VoicePart = None,
    style: VoicePart = None,
) -> ResynthesizeRequest:
    """Make the request that turns one recording into audio, through units.

    Parameters
    ----------
    audio, start, duration, channel
        As for `transcribe_request`.
    speaker, style
        As for `synthesize_request`.

    Raises
    ------
    ValueError
        If a time, the channel, a name or an index cannot be sent.
    """
    return ResynthesizeRequest(
        audio=audio_message(audio, start=start, duration=duration, channel=channel),
        voice=voice_message(speaker, style),
    )


def voice_message(speaker: VoicePart = None, style: VoicePart = None) -> Voice:
    """Make the part of a request that says which voice.

    Raises
    ------
    ValueError
        If a name or an index cannot be sent.
    """
    voice = Voice()
    for part, given in (("speaker", speaker), ("style", style)):
        if given is not None:
            if isinstance(given, str):
                setattr(voice, f"{part}_name", _text(part, given))
            else:
                setattr(voice, f"{part}_index", given)
    return voice


def audio_message(
    audio: AudioInput, *, start: float = 0.0, duration: float | None = None, channel: int | None = None
) -> Audio:
    """Make the part of a request that says which audio.

    Raises
    ------
    ValueError
        If the path, a time or the channel cannot be sent.
    """
    message = Audio(channel=channel)
    if isinstance(audio, bytes):
        message.content = audio
    else:
        path = os.fspath(audio)
        try:
            message.path = path if path.startswith("/") else str(Path(path).absolute())
        except UnicodeEncodeError as error:
            raise ValueError(f"path {path!r} is not valid Unicode: rename the file") from error
    if start:
        message.start.CopyFrom(_duration("start", start))
    if duration is not None:
        message.duration.CopyFrom(_duration("duration", duration))
    return message


def segmentation_options(
    threshold: float | None = None,
    merge_gap: float | None = None,
    min_speech: float | None = None,
    padding: float | None = None,
) -> SegmentationOptions:
    """Say how probabilities become segments; None takes the server's default.

    Parameters
    ----------
    threshold
        A frame is speech at or above this probability, 0 to 1.
    merge_gap, min_speech, padding
        Seconds: pauses to bridge, speech to drop, and what to add to both sides.

    Raises
    ------
    ValueError
        If a time cannot be sent.
    """
    options = SegmentationOptions(threshold=threshold)
    for name, value in (("merge_gap", merge_gap), ("min_speech", min_speech), ("padding", padding)):
        if value is not None:
            getattr(options, name).CopyFrom(_duration(name, value))
    return options


def _text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} {text!a} is not valid Unicode: read it as UTF-8") from error
    return text


def _duration(name: str, seconds: float) -> Duration:
    # The contract's Duration holds ten thousand years; NaN and infinity it cannot hold.
    if not 0 <= seconds < 3.15e11:
        raise ValueError(f"{name} is {seconds} s: give a time from 0 s on")
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)

"""A transcript as the contract's message."""

from amela.asr.v1 import asr_pb2
from amela.common.v1.server_pb2 import Model
from amela_common.durations import to_duration

from amela_asr.engine import Options, Word
from amela_asr.stitching import FailedPiece, TranscribedPiece
from amela_asr.transcription import Transcript


def response_of(transcript: Transcript, options: Options, model: Model) -> asr_pb2.TranscribeResponse:
    """Answer what was asked for, and no more than that."""
    stitched = transcript.stitched
    return asr_pb2.TranscribeResponse(
        text=stitched.text,
        segments=[_segment(piece, options) for piece in stitched.pieces],
        words=[_word(word, options) for word in stitched.words] if options.words else (),
        audio_duration=to_duration(transcript.duration),
        speech_duration=to_duration(transcript.speech),
        no_speech=transcript.no_speech,
        failures=[_failure(piece) for piece in stitched.failures],
        model=model,
    )


def _segment(piece: TranscribedPiece, options: Options) -> asr_pb2.Segment:
    return asr_pb2.Segment(
        text=piece.text,
        start=to_duration(piece.start),
        end=to_duration(piece.end),
        confidence=piece.confidence if options.confidence else None,
    )


def _word(word: Word, options: Options) -> asr_pb2.Word:
    return asr_pb2.Word(
        text=word.text,
        start=to_duration(word.start),
        end=to_duration(word.end),
        confidence=word.confidence if options.confidence else None,
    )


def _failure(piece: FailedPiece) -> asr_pb2.PieceFailure:
    return asr_pb2.PieceFailure(
        start=to_duration(piece.start),
        end=to_duration(piece.end),
        reason=piece.error.reason,
        message=piece.error.message,
    )

"""One recording from end to end: its pieces to the engine, their texts back together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from amela.common.v1 import error_pb2
from amela_common.audio import AudioSource, Clip
from amela_common.errors import RequestError
from amela_common.voice.pieces import Piece

from amela_asr.engine import Capabilities, Engine, Options, Recognition
from amela_asr.front import Front
from amela_asr.stitching import Stitched, stitch

# Transient ones that another try here does not mend: it adds to the load, or comes too late.
_NOT_AGAIN = frozenset({"QUEUE_FULL", "DRAINING", "ENGINE_LOST"})


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording.

    Attributes
    ----------
    duration
        Length of the recording in seconds.
    speech
        Length of the speech in it, in seconds.
    stitched
        What was heard in each of its pieces.
    no_speech
        There is nothing to recognise: the engine was not asked.
    """

    duration: float
    speech: float
    stitched: Stitched
    no_speech: bool


async def transcribe(source: AudioSource, options: Options, front: Front, engine: Engine) -> Transcript:
    """Transcribe a recording of any length.

    A piece of several that fails for a passing reason, such as the death of its worker, is tried once
    more; the only piece of a recording is not, because the client has other servers for that. A
    cancelled call takes back the pieces that the engine has not begun.

    Raises
    ------
    RequestError
        If the recording cannot be read, or none of its pieces be recognised.
    """
    outcomes: list[asyncio.Task[Recognition | RequestError]] = []
    caller = object()
    # A long recording keeps the engine busy but never queues more than that ahead of others.
    places = asyncio.Semaphore(engine.concurrency)
    try:
        async with front.open(source) as (plan, clips):
            tries = min(2, len(plan.pieces))
            asked = _asked(options, plan.pieces, engine.capabilities)
            async for clip in clips:
                await places.acquire()
                outcomes.append(asyncio.create_task(_outcome(clip, asked, engine, caller, tries)))
                outcomes[-1].add_done_callback(lambda _: places.release())
        stitched = stitch(plan.pieces, [await outcome for outcome in outcomes])
    finally:
        for outcome in outcomes:
            outcome.cancel()
    if plan.pieces and not stitched.pieces:
        raise stitched.failures[0].error
    return Transcript(plan.duration, plan.speech, stitched, no_speech=not plan.pieces)


def _asked(options: Options, pieces: Sequence[Piece], capabilities: Capabilities) -> Options:
    # Where speech itself was cut, times tell which words both pieces hold. The text should not depend
    # on whether the caller wants them too.
    if capabilities.word_times and any(piece.overlaps_previous for piece in pieces):
        return replace(options, words=True)
    return options


async def _outcome(
    clip: Clip, options: Options, engine: Engine, caller: object, tries: int
) -> Recognition | RequestError:
    try:
        return await engine.recognize(clip, options, caller)
    except RequestError as error:
        if tries == 1 or not _may_pass(error):
            return error
    return await _outcome(clip, options, engine, caller, tries - 1)


def _may_pass(error: RequestError) -> bool:
    value = error_pb2.ErrorReason.DESCRIPTOR.values_by_name[f"ERROR_REASON_{error.reason}"]
    return bool(value.GetOptions().Extensions[error_pb2.transient]) and error.reason not in _NOT_AGAIN

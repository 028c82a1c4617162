"""What a recording's text is made of does not depend on what else its caller wants."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest
from amela.common.v1.server_pb2 import Model
from amela_asr.cutting import Plan
from amela_asr.engine import Capabilities, Engine, Options, Recognition, Word
from amela_asr.front import Front
from amela_asr.responses import response_of
from amela_asr.transcription import Transcript, transcribe
from amela_common.audio import AudioSource, Clip
from amela_common.voice.pieces import Piece

CUT_IN_SPEECH = (Piece(0, 10), Piece(9, 19, overlaps_previous=True))
CUT_IN_PAUSES = (Piece(0, 10), Piece(10, 20))
# The last word is clipped on the left side, the first one on the right.
HEARD = (
    (Word("it", 8.8, 9.1), Word("is", 9.3, 9.42), Word("two", 9.8, 10.0)),
    (Word("its", 0.0, 0.1), Word("is", 0.36, 0.48), Word("to", 0.8, 1.1), Word("go", 1.2, 1.4)),
)


class FakeFront:
    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        self.pieces = pieces

    @asynccontextmanager
    async def open(self, source: AudioSource) -> AsyncIterator[tuple[Plan, AsyncIterator[Clip]]]:
        yield Plan(20, 20, self.pieces), self.clips()

    async def clips(self) -> AsyncGenerator[Clip]:
        for number in range(len(self.pieces)):
            yield Clip(np.full(1, number, np.float32), 16_000)


class FakeEngine:
    """Gives words only if it is asked for them, as NeMo's models do."""

    concurrency = 2

    def __init__(self, word_times: bool) -> None:
        self.capabilities = Capabilities(word_times=word_times)
        self.asked: list[Options] = []

    async def recognize(self, clip: Clip, options: Options, caller: object) -> Recognition:
        self.asked.append(options)
        words = HEARD[int(clip.samples[0])]
        return Recognition(" ".join(word.text for word in words), words if options.words else None)


async def run(pieces: tuple[Piece, ...], engine: FakeEngine, options: Options) -> Transcript:
    front = cast(Front, FakeFront(pieces))
    return await transcribe(AudioSource(path="/a.wav"), options, front, cast(Engine, engine))


@pytest.mark.parametrize("words", [False, True])
async def test_the_text_around_a_cut_in_speech_is_the_same_with_words_and_without(words: bool) -> None:
    options = Options(words=words, confidence=False)
    transcript = await run(CUT_IN_SPEECH, FakeEngine(word_times=True), options)
    response = response_of(transcript, options, Model())

    assert response.text == "it is to go"
    assert [segment.text for segment in response.segments] == ["it is", "to go"]
    assert [word.text for word in response.words] == (["it", "is", "to", "go"] if words else [])


async def test_words_are_not_asked_for_where_they_are_of_no_use() -> None:
    engine = FakeEngine(word_times=True)
    await run(CUT_IN_PAUSES, engine, Options())
    assert engine.asked == [Options()] * 2

    engine = FakeEngine(word_times=False)
    await run(CUT_IN_SPEECH, engine, Options(language="en"))
    assert engine.asked == [Options(language="en")] * 2

from pathlib import Path

import numpy as np
import pytest
import soundfile
from amela.vad.v1 import vad_pb2
from amela_common.audio import AudioLimits, AudioSource
from amela_common.errors import RequestError
from amela_common.pool import CHECKPOINT
from amela_common.voice.segmentation import SegmentationOptions
from amela_vad.detection import Detection, DetectionHandler

EXAMPLES = Path(__file__).parents[3] / "examples"
LIMITS = AudioLimits(roots=(str(EXAMPLES),))
SENTENCE = AudioSource(path=str(EXAMPLES / "sense-and-sensibility-0870.flac"))


def detect(limit: int, *, frame_probabilities: bool = False, source: AudioSource = SENTENCE) -> list[object]:
    handler = DetectionHandler(LIMITS, limit)
    return list(handler(Detection(source, SegmentationOptions(), frame_probabilities)))


def test_there_is_a_checkpoint_for_each_block_and_then_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(61 * 16000, np.int16), 16000)
    *checkpoints, answer = detect(1 << 20, source=AudioSource(content=path.read_bytes()))
    assert checkpoints == [CHECKPOINT] * 3
    assert isinstance(answer, bytes)
    assert vad_pb2.DetectResponse.FromString(answer).no_speech


def test_an_answer_just_small_enough_is_given_and_one_byte_less_is_refused() -> None:
    *_, answer = detect(1 << 20)
    assert isinstance(answer, bytes)
    assert detect(len(answer))[-1] == answer
    with pytest.raises(RequestError, match=r"0870\.flac: the segments take .* shorter stretches") as caught:
        detect(len(answer) - 1)
    assert caught.value.reason == "AUDIO_TOO_LONG"


@pytest.mark.parametrize("limit", [1000, 7.1 / 0.016 * 4 + 50])
def test_probabilities_that_no_message_can_hold_are_refused_with_the_cure(limit: float) -> None:
    with pytest.raises(RequestError, match=rf"the {limit:.0f} bytes .* less than \d+ s") as caught:
        detect(round(limit), frame_probabilities=True)
    assert caught.value.reason == "INVALID_REQUEST"
    assert caught.value.metadata["field"] == "frame_probabilities"

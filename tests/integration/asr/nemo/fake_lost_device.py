"""`amela-asr` on a device that is lost as soon as the file in FAKE_DEVICE_LOST exists.

CUDA then answers every call with an error; here computing does, because there is no GPU to lose.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from amela_asr.__main__ import main
from amela_asr.engine import Recognition
from amela_asr.engines import loading
from amela_asr.engines.recognizer import Recognizer, Utterance
from amela_common.errors import RequestError

real_load_recognizer = loading.load_recognizer


def load_recognizer(*arguments: Any, **options: Any) -> Recognizer:
    recognizer = real_load_recognizer(*arguments, **options)
    recognize = recognizer.recognize
    lost = Path(os.environ["FAKE_DEVICE_LOST"])

    def recognize_unless_lost(batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        if lost.exists():
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        return recognize(batch)

    recognizer.recognize = recognize_unless_lost  # type: ignore[method-assign]
    return recognizer


if __name__ == "__main__":
    loading.load_recognizer = load_recognizer
    sys.exit(main())

"""Speech to units and back: resynthesise a sentence, and draw its units over its spectrogram.

The model is a tiny one that this script writes itself. It is not trained: what comes out is noise that
follows the sentence's units, made by all the parts that a trained model goes through.
"""

import sys
import wave
from pathlib import Path

import matplotlib as mpl
import numpy as np
import soundfile
from amela.common.v1.audio_pb2 import Audio
from amela.sts.v1 import sts_pb2
from amela_sts.tiny import write_model
from amela_sts.units import runs
from numpy.typing import NDArray
from sts_server import sts_server

mpl.use("Agg")
from matplotlib import pyplot as plt

EXAMPLES = Path(__file__).parent.resolve()
WORK = EXAMPLES.parent / ".demo"
SENTENCE = EXAMPLES / "sense-and-sensibility-0880.flac"


def main() -> int:
    """Run the demo and return its exit code."""
    model = write_model(WORK / "tiny-sts")
    with sts_server("--model", str(model), "--trust") as server:
        info = server.stub.GetInfo(sts_pb2.GetInfoRequest(), metadata=server.metadata)
        print(
            f"{info.server.model.name}, fingerprint {info.server.model.fingerprint}: {info.vocabulary} units"
        )
        request = sts_pb2.ResynthesizeRequest(
            audio=Audio(path=str(SENTENCE)), voice=sts_pb2.Voice(speaker_name=info.speakers[1])
        )
        parts = list(server.stub.Resynthesize(request, metadata=server.metadata))
    units = np.array([unit for part in parts for unit in part.units])
    samples = np.frombuffer(b"".join(part.samples for part in parts), "<f4")
    assert len(samples) == len(units) * info.unit_hop_samples

    audio, picture = WORK / "resynthesised.wav", WORK / "units.png"
    write_wav(audio, samples, info.output_sample_rate_hz)
    draw(picture, SENTENCE, units, info.unit_rate_hz)
    print(f"{len(units)} units, {len(runs(units)[0])} without repeats; {len(samples)} samples")
    print(f"audio:   {audio}\npicture: {picture}")
    return 0


def write_wav(path: Path, samples: NDArray[np.float32], rate: int) -> None:
    """Write 16 bit PCM, which every player plays."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def draw(path: Path, recording: Path, units: NDArray[np.int64], unit_rate: float) -> None:
    """Draw a recording's spectrogram with a line wherever the unit changes, and each unit's number."""
    samples, rate = soundfile.read(recording, dtype="float32")
    figure, axes = plt.subplots(figsize=(16, 4), layout="constrained")
    axes.specgram(samples, NFFT=512, Fs=rate, noverlap=384, cmap="magma")
    kept, lengths = runs(units)
    starts = np.r_[0, np.cumsum(lengths)[:-1]] / unit_rate
    for number, start in zip(kept, starts, strict=True):
        axes.axvline(start, color="white", linewidth=0.4)
        axes.text(start, rate / 2, f" {number}", color="black", fontsize=5, rotation=90, va="bottom")
    axes.set(xlabel="seconds", ylabel="Hz", xlim=(0, len(samples) / rate), ylim=(0, rate / 2))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())

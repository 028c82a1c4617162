"""Recordings through real servers: start them, find speech, transcribe, and score the result.

Everything is done by the same commands that a user would type; each is printed before it runs.
With ``--nemo``, a tiny NeMo model hears synthetic commands, which is all that it has learnt.
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).parent
WORK = EXAMPLES.parent / ".demo"
BIN = Path(sys.executable).parent
PAUSE_SECONDS = 2.0
# Well above the 0.28 or so that the embedded engine reaches on read speech: beyond it something is broken.
ACCEPTABLE_WER = 0.35
START_TIMEOUT_SECONDS = 120

console = Console(highlight=False)


@dataclass(frozen=True)
class Scene:
    """What is played.

    Attributes
    ----------
    recordings
        Manifest of short recordings with their transcripts as ``text_ref``.
    servers
        Commands that start the servers.
    """

    recordings: Path
    servers: tuple[tuple[str, ...], ...]


READ_SPEECH = Scene(EXAMPLES / "data.json", (("amela-vad",), ("amela-asr",)))
TINY_NEMO = EXAMPLES.parent / "tests/models/nemo_tiny"
COMMANDS = Scene(TINY_NEMO / "clips.json", (("amela-asr", "--model", str(TINY_NEMO / "ctc-bpe.nemo")),))


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nemo", action="store_true", help="the tiny NeMo model on synthetic commands")
    scene = COMMANDS if parser.parse_args().nemo else READ_SPEECH
    WORK.mkdir(exist_ok=True)
    manifest = write_manifest(scene.recordings)
    output, registry = WORK / "transcripts.json", WORK / "registry"
    started = time.monotonic()
    with contextlib.ExitStack() as servers:
        for command in scene.servers:
            servers.enter_context(server(command, registry))
        at = ("--registry", str(registry))
        run("amela-client", "servers", *at)
        if ("amela-vad",) in scene.servers:
            run("amela-client", "vad", str(manifest), "-o", str(WORK / "vad.json"), *at)
        run("amela-client", "transcribe", str(manifest), "-o", str(output), *at)
    error_rate = show(output)
    console.print(f"\nWord error rate {error_rate:.3f}, done in {time.monotonic() - started:.0f} s: {output}")
    if error_rate > ACCEPTABLE_WER:
        console.print(f"[red]The word error rate is above {ACCEPTABLE_WER}: something is wrong.[/]")
        return 1
    return 0


def write_manifest(recordings: Path) -> Path:
    """Make one recording of over a minute from the short ones, and a manifest of them all."""
    short = [json.loads(line) for line in recordings.read_text().splitlines()]
    for entry in short:
        entry["audio_filepath"] = str(recordings.parent.resolve() / entry["audio_filepath"])
    clips, texts = [], []
    for entry in short + short[::-1]:
        samples, rate = soundfile.read(entry["audio_filepath"], dtype="int16")
        clips += [samples, np.zeros(int(PAUSE_SECONDS * rate), np.int16)]
        texts.append(entry["text_ref"])
    long_recording = WORK / "all-of-them-twice.flac"
    soundfile.write(long_recording, np.concatenate(clips), rate)
    long_entry = {
        "audio_filepath": str(long_recording.resolve()),
        "duration": sum(map(len, clips)) / rate,
        "text_ref": " ".join(texts),
    }
    manifest = WORK / "data.json"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in [*short, long_entry]))
    return manifest


@contextlib.contextmanager
def server(base: tuple[str, ...], registry: Path) -> Iterator[None]:
    """Run a server until the block ends."""
    program = base[0]
    command = [*base, "--registry", str(registry), "--host", "127.0.0.1"]
    command += ["--audio-root", str(EXAMPLES.parent.resolve())]
    console.print(f"[bold]$ {shlex.join(command)} &[/]")
    before = set(registry.glob("*.json"))
    with (WORK / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([BIN / program, *command[1:]], stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not set(registry.glob("*.json")) - before:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{program} did not start:\n{Path(log.name).read_text()}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def run(program: str, *arguments: str) -> None:
    """Run a command of the client and stop the demo if it fails."""
    console.print(f"\n[bold]$ {shlex.join([program, *arguments])}[/]")
    code = subprocess.run([BIN / program, *arguments], check=False).returncode
    if code:
        raise SystemExit(f"{program} ended with exit code {code}")


def show(output: Path) -> float:
    """Print each transcript beside its reference; return the word error rate over all of them."""
    table = Table("recording", "reference", "transcript", "WER", show_lines=True)
    references, transcripts = [], []
    for line in output.read_text().splitlines():
        entry = json.loads(line)
        references.append(entry["text_ref"])
        transcripts.append(entry["text"])
        error_rate = jiwer.wer(references[-1], transcripts[-1])
        table.add_row(
            Path(entry["audio_filepath"]).name, references[-1], transcripts[-1], f"{error_rate:.2f}"
        )
    console.print(table)
    return float(jiwer.wer(references, transcripts))


if __name__ == "__main__":
    sys.exit(main())

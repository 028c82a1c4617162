"""Servers and the client run from their images as they are installed, and answer real speech."""

import json
import os
import stat
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import psutil
from amela_client import SyncAmelaClient

from ...conftest import NOBODY, RunningServer, wait_until
from ..images_built import APPTAINER, ROOT, Images
from .conftest import EXAMPLES, SENTENCE, StartImage, apptainer

NEMO_TINY = ROOT / "tests" / "models" / "nemo_tiny"


def in_flight(server: RunningServer) -> float:
    url = f"http://127.0.0.1:{server.registration['metricsPort']}/metrics"
    lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("amela_requests_in_flight"))


def test_the_vad_image_finds_speech(images: Images, start_image: StartImage) -> None:
    server = start_image(images("vad"), "--workers", "1")
    with SyncAmelaClient(registry=server.registry) as client:
        activity = client.detect(SENTENCE)
    assert sum(segment.end - segment.start for segment in activity.segments) > 1
    assert server.terminate() == 0
    assert not list(server.registry.glob("*.json"))


def test_the_client_image_transcribes_by_the_embedded_asr_image(
    images: Images, start_image: StartImage, scratch: Path
) -> None:
    server = start_image(images("asr-embedded"), "--workers", "2")
    apptainer(
        *(
            "run",
            "--bind",
            f"{EXAMPLES}:{EXAMPLES}:ro",
            images("client"),
            "transcribe",
            EXAMPLES / "data.json",
        ),
        *("-o", scratch / "transcripts.json", "--registry", server.registry),
    )
    lines = [json.loads(line) for line in (scratch / "transcripts.json").read_text().splitlines()]
    manifest = [json.loads(line) for line in (EXAMPLES / "data.json").read_text().splitlines()]
    assert [line["text_ref"] for line in lines] == [entry["text_ref"] for entry in manifest]
    assert jiwer.wer([line["text_ref"] for line in lines], [line["text"] for line in lines]) < 0.5


def test_sigterm_drains_a_busy_server_in_an_image(images: Images, start_image: StartImage) -> None:
    server = start_image(images("asr-embedded"), "--workers", "1")
    with SyncAmelaClient(registry=server.registry) as client, ThreadPoolExecutor() as threads:
        transcript = threads.submit(client.transcribe, EXAMPLES / "sense-and-sensibility-0870.flac")
        wait_until(lambda: in_flight(server) > 0)
        assert server.terminate() == 0
        assert transcript.result().text
    assert not list(server.registry.glob("*.json"))


def test_the_nemo_image_transcribes_with_a_model_that_is_bound_into_it(
    images: Images, start_image: StartImage
) -> None:
    model = NEMO_TINY / "ctc-char.nemo"
    options = ("--model", model, "--device", "cpu", "--audio-root", NEMO_TINY)
    server = start_image(images("asr"), *options, binds=f"{NEMO_TINY}:{NEMO_TINY}:ro")
    commands = [json.loads(line) for line in (NEMO_TINY / "clips.json").read_text().splitlines()[:8]]
    with SyncAmelaClient(registry=server.registry) as client:
        texts = [client.transcribe(NEMO_TINY / command["audio_filepath"]).text for command in commands]
    assert jiwer.wer([command["text_ref"] for command in commands], texts) < 0.1
    assert server.terminate() == 0


def test_the_sts_image_turns_speech_into_units_and_into_another_voice(
    images: Images, start_image: StartImage, scratch: Path
) -> None:
    write = (
        "import sys, pathlib; from amela_sts.tiny import write_model; write_model(pathlib.Path(sys.argv[1]))"
    )
    apptainer("exec", images("sts"), "python", "-c", write, scratch)
    server = start_image(images("sts"), "--model", scratch / "tiny.toml", "--trust", "--device", "cpu")
    with SyncAmelaClient(registry=server.registry) as client:
        units = client.encode(SENTENCE)
        spoken = client.resynthesize(SENTENCE, speaker="ex02", style="whisper")
    assert len(set(units.units)) > 1
    assert len(spoken.samples) == 320 * len(units.units)
    assert server.terminate() == 0


def test_the_sts_image_finds_nothing_wrong_with_itself(images: Images) -> None:
    assert "ok: legacy checkpoints can be loaded" in apptainer("run", images("sts"), "doctor").stdout


def test_a_server_needs_no_right_of_roots(images: Images, start_image: StartImage, scratch: Path) -> None:
    # An ordinary user may not reach this checkout, so it is shown to them elsewhere.
    (checkout := scratch / "checkout").mkdir()
    own = scratch / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    scratch.chmod(0o777)
    mounted = f'mount --bind "{ROOT}" "{checkout}" && exec "$@"'
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all")
    fuse = Path("/dev/fuse")
    # Where users may not mount by FUSE, Apptainer can unpack the image first.
    how = () if fuse.exists() and fuse.stat().st_mode & stat.S_IWOTH else ("--unsquash",)
    server = start_image(
        checkout / images("vad").relative_to(ROOT),
        examples=checkout / EXAMPLES.relative_to(ROOT),
        before=(
            *("unshare", "--mount", "sh", "-c", mounted, "sh", *user, "env", f"HOME={own}"),
            *(checkout / APPTAINER.relative_to(ROOT), "run", *how),
        ),
    )
    status = Path(f"/proc/{server.registration['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(NOBODY)}
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    with SyncAmelaClient(registry=server.registry) as client:
        assert client.detect(checkout / SENTENCE.relative_to(ROOT)).segments
    assert server.terminate() == 0


def test_wrong_options_end_with_the_servers_own_words_and_exit_code(images: Images) -> None:
    done = apptainer("run", images("vad"), "--audio-root", "/not/there", code=2)
    assert "amela-vad: --audio-root /not/there is not a folder" in done.stderr


def test_a_server_ends_when_apptainer_is_killed(images: Images, start_image: StartImage) -> None:
    server = start_image(images("vad"), "--workers", "1")
    inside = [
        psutil.Process(server.process.pid),
        *psutil.Process(server.process.pid).children(recursive=True),
    ]
    server.process.kill()
    try:
        wait_until(lambda: not psutil.pid_exists(server.registration["pid"]))
    finally:
        for process in inside:
            # What mounted the image is not told.
            if process.is_running():
                process.kill()


def test_an_instance_serves_until_it_is_stopped(images: Images, scratch: Path) -> None:
    registry = scratch / "registry"
    apptainer(
        *("instance", "start", "--bind", f"{EXAMPLES}:{EXAMPLES}:ro", images("vad"), f"amela-{os.getpid()}"),
        *("--registry", registry, "--host", "127.0.0.1", "--audio-root", EXAMPLES),
    )
    try:
        wait_until(lambda: list(registry.glob("*.json")))
        with SyncAmelaClient(registry=registry) as client:
            assert client.detect(SENTENCE).segments
    finally:
        apptainer("instance", "stop", f"amela-{os.getpid()}")
    wait_until(lambda: not list(registry.glob("*.json")))

"""Units and audio over the network, from a real `amela-sts` with a tiny model."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import soundfile
from amela.common.v1.audio_pb2 import Audio
from amela.sts.v1 import sts_pb2, sts_pb2_grpc
from amela_common.durations import from_duration, to_duration
from amela_sts.tiny import write_hubert
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ...conftest import RunningServer, StartServer, program

SPEECH = "sense-and-sensibility-0880.flac"
COMMAND = ["amela-sts", "--trust", "--device", "cpu", "--audio-root", "/"]


class Caller:
    """The three methods with their parts put together."""

    def __init__(self, server: RunningServer) -> None:
        self._metadata = server.metadata
        self.stub = sts_pb2_grpc.StsServiceStub(server.channel())

    def info(self) -> sts_pb2.GetInfoResponse:
        return self.stub.GetInfo(sts_pb2.GetInfoRequest(), metadata=self._metadata)

    def encode(self, audio: Audio, **options: Any) -> list[sts_pb2.EncodeResponse]:
        request = sts_pb2.EncodeRequest(audio=audio, **options)
        return list(self.stub.Encode(request, metadata=self._metadata))

    def synthesize(self, **request: Any) -> list[sts_pb2.SynthesizeResponse]:
        return list(self.stub.Synthesize(sts_pb2.SynthesizeRequest(**request), metadata=self._metadata))

    def resynthesize(self, audio: Audio, **options: Any) -> list[sts_pb2.ResynthesizeResponse]:
        request = sts_pb2.ResynthesizeRequest(audio=audio, **options)
        return list(self.stub.Resynthesize(request, metadata=self._metadata))


def _units(parts: Any) -> list[int]:
    return [unit for part in parts for unit in part.units]


def _durations(parts: Any) -> list[int]:
    return [duration for part in parts for duration in part.durations]


def _samples(parts: Any) -> Any:
    return np.frombuffer(b"".join(part.samples for part in parts), "<f4")


def _reason(error: grpc.RpcError) -> tuple[str, str]:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, info.metadata.get("field", "")


@pytest.fixture(scope="module")
def server(tiny: Path, start_module_server: StartServer) -> RunningServer:
    return start_module_server([*COMMAND, "--model", str(tiny / "tiny.toml")])


@pytest.fixture(scope="module")
def caller(server: RunningServer) -> Caller:
    return Caller(server)


@pytest.fixture(scope="module")
def speech(examples: Path) -> Audio:
    return Audio(path=str(examples / SPEECH))


def test_info_says_what_the_model_is(caller: Caller) -> None:
    info = caller.info()
    assert (info.vocabulary, info.feature_dim, info.unit_hop_samples) == (50, 32, 320)
    assert (info.input_sample_rate_hz, info.output_sample_rate_hz, info.unit_rate_hz) == (
        16_000,
        16_000,
        50.0,
    )
    assert list(info.speakers) == ["ex01", "ex02", "ex03", "ex04"]
    assert list(info.styles) == ["default", "happy", "whisper"]
    assert info.duration_prediction
    assert (info.server.model.engine, info.server.model.name) == ("fairseq", "tiny")
    assert len(info.server.model.fingerprint) == 16
    assert list(info.server.model.warnings) == []


def test_speech_becomes_units_in_one_part(caller: Caller, speech: Audio) -> None:
    [part] = caller.encode(speech, dense_features=True)
    seconds = soundfile.info(speech.path).duration
    assert len(part.units) == int((seconds * 16_000 - 400) // 320 + 1)
    assert set(part.durations) == {1}
    assert len(set(part.units)) > 5
    assert len(part.dense_features) == len(part.units) * 32 * 4
    assert from_duration(part.audio_duration) == pytest.approx(seconds)
    assert part.model.fingerprint == caller.info().server.model.fingerprint


def test_deduplicated_units_expand_to_all_units(caller: Caller, speech: Audio) -> None:
    [whole], [short] = caller.encode(speech), caller.encode(speech, deduplicate=True)
    assert len(short.units) < len(whole.units)
    assert np.repeat(short.units, short.durations).tolist() == list(whole.units)
    assert all(one != other for one, other in zip(short.units, short.units[1:], strict=False))


def test_encode_and_synthesize_with_durations_is_resynthesize(caller: Caller, speech: Audio) -> None:
    voice = sts_pb2.Voice(speaker_name="ex02", style_name="happy")
    parts = caller.resynthesize(speech, voice=voice)
    [encoded] = caller.encode(speech, deduplicate=True)
    spoken = caller.synthesize(units=encoded.units, durations=encoded.durations, voice=voice)
    assert _samples(spoken).tobytes() == _samples(parts).tobytes()
    assert _units(parts) == np.repeat(encoded.units, encoded.durations).tolist()
    assert len(_samples(parts)) == len(_units(parts)) * 320
    assert from_duration(parts[-1].audio_duration) == len(_units(parts)) * 0.02
    assert parts[-1].model.fingerprint == encoded.model.fingerprint
    other = caller.resynthesize(speech, voice=sts_pb2.Voice(speaker_index=3))
    assert _samples(other).tobytes() != _samples(parts).tobytes()


def test_predicted_durations_make_the_audio_as_long_as_they_say(caller: Caller, speech: Audio) -> None:
    [encoded] = caller.encode(speech, deduplicate=True)
    spoken = _samples(caller.synthesize(units=encoded.units, predict_durations=True))
    assert len(spoken) % 320 == 0
    assert len(spoken) > len(encoded.units) * 320


def test_deduplicated_units_without_durations_are_an_error_not_short_audio(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.synthesize(units=[1, 2, 3])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert _reason(caught.value) == ("INVALID_REQUEST", "durations")


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"units": [], "durations": []}, "INVALID_REQUEST", "units"),
        ({"units": [50], "durations": [1]}, "INVALID_REQUEST", "units[0]"),
        ({"units": [1], "durations": [1, 1]}, "INVALID_REQUEST", "durations"),
        (
            {"units": [1], "durations": [1], "voice": sts_pb2.Voice(speaker_name="nobody")},
            "UNSUPPORTED_OPTION",
            "voice.speaker_name",
        ),
    ],
)
def test_bad_requests_are_answered_with_reason_and_field(
    request_: dict[str, Any], reason: str, field: str, caller: Caller
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.synthesize(**request_)
    assert _reason(caught.value) == (reason, field)


def test_silence_has_units(caller: Caller, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    [part] = caller.encode(Audio(path=str(tmp_path / "silence.wav")), deduplicate=True)
    assert sum(part.durations) == 49


def test_ten_milliseconds_are_too_short_and_say_so(caller: Caller, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", np.zeros(160), 16_000)
    with pytest.raises(grpc.RpcError, match="160 samples at 16000 Hz; one unit takes 400") as caught:
        caller.encode(Audio(path=str(tmp_path / "click.wav")))
    assert _reason(caught.value)[0] == "AUDIO_TOO_SHORT"


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_any_rate_and_channel_count_is_taken(
    rate: int, channels: int, caller: Caller, tmp_path: Path
) -> None:
    tone = 0.3 * np.sin(np.arange(rate * 2) * 2 * np.pi * 220 / rate)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone] * channels, axis=1), rate)
    parts = caller.resynthesize(Audio(path=str(tmp_path / "tone.wav")))
    assert len(_samples(parts)) == 99 * 320


def test_a_stretch_of_audio_sent_as_bytes_is_encoded(caller: Caller, speech: Audio) -> None:
    start, duration = to_duration(1.0), to_duration(0.5)
    content = Path(speech.path).read_bytes()
    [sent] = caller.encode(Audio(content=content, start=start, duration=duration))
    [read] = caller.encode(Audio(path=speech.path, start=start, duration=duration))
    assert sent.units == read.units
    assert len(sent.units) == 24


def test_two_servers_and_batches_give_the_same_units_and_audio(
    tiny: Path, caller: Caller, start_server: StartServer, examples: Path
) -> None:
    other = Caller(start_server([*COMMAND, "--model", str(tiny / "tiny.toml"), "--batch-seconds", "60"]))
    audios = [Audio(path=str(path)) for path in sorted(examples.glob("*.flac"))]
    calls = [
        other.stub.Resynthesize(sts_pb2.ResynthesizeRequest(audio=audio), metadata=other._metadata)
        for audio in audios
    ]
    for call, audio in zip(calls, audios, strict=True):
        theirs, ours = list(call), caller.resynthesize(audio)
        assert _units(theirs) == _units(ours)
        assert np.abs(_samples(theirs) - _samples(ours)).max() < 1e-5
        assert theirs[-1].model == ours[-1].model


def _drop_pos_conv(state: dict[str, Any]) -> None:
    weights = state["model"]
    weights["encoder.pos_conv.0.weight_g"] = weights["encoder.pos_conv.0.weight_g"].new_ones(32, 1, 1)
    weights["encoder.pos_conv.0.weight_v"] = weights["encoder.pos_conv.0.weight_v"].new_ones(32)


@pytest.fixture
def lost(tiny: Path, tmp_path: Path) -> Path:
    """A model whose positional convolution nothing can recover."""
    for name in ("kmeans.npz", "tiny.toml", "vocoder.pt", "vocoder.json", "speakers.txt", "styles.txt"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    write_hubert(tmp_path / "hubert.pt", change=_drop_pos_conv)
    return tmp_path / "tiny.toml"


def test_a_layer_drawn_anew_is_the_same_on_every_server_and_shows(
    lost: Path, start_server: StartServer, speech: Audio, caller: Caller
) -> None:
    servers = [
        Caller(start_server([*COMMAND, "--model", str(lost), "--pos-conv", "reinit"])) for _ in range(2)
    ]
    [one], [other] = (each.encode(speech) for each in servers)
    assert one.units == other.units
    model = servers[0].info().server.model
    assert "re-initialised from seed" in model.warnings[0]
    assert model.fingerprint == other.model.fingerprint != caller.info().server.model.fingerprint


def _fails_to_start(*arguments: str) -> str:
    done = subprocess.run(
        [program("amela-sts"), "--insecure", "--host", "127.0.0.1", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def test_what_cannot_be_recovered_ends_the_start_with_one_line(lost: Path, tmp_path: Path) -> None:
    line = _fails_to_start("--model", str(lost), "--trust", "--registry", str(tmp_path / "registry"))
    assert "encoder.pos_conv cannot be recovered" in line
    assert "--pos-conv reinit" in line


def test_a_server_says_how_much_one_of_its_batches_holds(
    tiny: Path, start_server: StartServer, caller: Caller
) -> None:
    command = [*COMMAND, "--model", str(tiny / "tiny.toml"), "--batch-seconds", "40"]
    server = start_server(command, AMELA_GPU_MEMORY_MIB="20000")
    assert server.registration["capacity"]["batchSeconds"] == 40
    assert "gpu" not in server.registration
    assert caller.info().server.capacity.batch_seconds == 0


def test_a_gpus_memory_that_holds_no_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    model, registry = str(tiny / "tiny.toml"), str(tmp_path / "registry")
    line = _fails_to_start("--model", model, "--registry", registry, "--gpu-memory-mib", "100")
    assert "--gpu-memory-mib: Input should be greater than or equal to 1024 (got '100')" in line


def test_an_unknown_checkpoint_is_not_opened_without_trust(tiny: Path, tmp_path: Path) -> None:
    line = _fails_to_start("--model", str(tiny / "tiny.toml"), "--registry", str(tmp_path / "registry"))
    assert "a pickle can run code: give --trust" in line


def test_a_published_model_that_is_not_staged_says_how_to_get_it(tmp_path: Path) -> None:
    root = str(tmp_path)
    line = _fails_to_start("--checkpoint-root", root, "--registry", str(tmp_path / "registry"))
    assert f"amela-sts stage mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000 --to {root}" in line


def test_a_model_without_a_vocoder_only_encodes(
    tiny: Path, start_server: StartServer, speech: Audio, tmp_path: Path
) -> None:
    card = tmp_path / "units.toml"
    card.write_text(f'layer = 2\ndense = "{tiny}/hubert.pt"\nkmeans = "{tiny}/kmeans.npz"\n')
    caller = Caller(start_server([*COMMAND, "--model", str(card)]))
    assert caller.info().output_sample_rate_hz == 0
    assert caller.encode(speech)
    with pytest.raises(grpc.RpcError, match="only encodes") as caught:
        caller.resynthesize(speech)
    assert _reason(caught.value)[0] == "UNSUPPORTED_OPTION"


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three hours: speech-like noise that comes and goes."""
    path = tmp_path_factory.mktemp("hours") / "hours.flac"
    rng = np.random.default_rng(0)
    minute = rng.normal(0, 0.1, 60 * 4_000) * np.abs(np.sin(np.arange(60 * 4_000) / 4_000))
    with soundfile.SoundFile(path, "w", 4_000, 1) as file:
        for _ in range(180):
            file.write(minute)
    yield path
    path.unlink()


def test_three_hours_come_in_parts_without_a_seam_and_without_growing(
    server: RunningServer, caller: Caller, hours: Path
) -> None:
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]
    request = sts_pb2.EncodeRequest(audio=Audio(path=str(hours)), deduplicate=True)
    parts, early, late = [], 0, 0
    for part in caller.stub.Encode(request, metadata=caller._metadata):
        parts.append(part)
        resident = sum(process.memory_info().rss for process in processes)
        early = max(early, resident) if len(parts) < 20 else early
        late = max(late, resident)
    assert len(parts) == 135
    frames = (3 * 3600 * 16_000 - 400) // 320 + 1
    assert sum(_durations(parts)) == frames
    units = np.array(_units(parts))
    assert (units[1:] != units[:-1]).all()
    assert from_duration(parts[-1].audio_duration) == 3 * 3600
    assert late - early < 100 << 20


def test_calls_that_are_cancelled_give_their_places_back(caller: Caller, hours: Path, speech: Audio) -> None:
    request = sts_pb2.EncodeRequest(audio=Audio(path=str(hours)))
    for _ in range(caller.info().server.capacity.concurrency + 1):
        call = caller.stub.Encode(request, metadata=caller._metadata)
        assert next(iter(call)).units
        call.cancel()
    assert _units(caller.encode(speech))


def test_a_recording_longer_than_the_server_takes_is_refused(
    tiny: Path, start_server: StartServer, speech: Audio
) -> None:
    caller = Caller(start_server([*COMMAND, "--model", str(tiny / "tiny.toml"), "--max-audio-seconds", "1"]))
    with pytest.raises(grpc.RpcError) as caught:
        caller.encode(speech)
    assert _reason(caught.value)[0] == "AUDIO_TOO_LONG"
    with pytest.raises(grpc.RpcError) as caught:
        caller.synthesize(units=[1], durations=[51])
    assert _reason(caught.value)[0] == "AUDIO_TOO_LONG"
    assert from_duration(caller.info().server.limits.max_audio) == 1


def test_the_models_command_lists_what_each_model_needs_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "hubert_base_ls960.pt").touch()
    told = subprocess.run(
        [program("amela-sts"), "models", "--checkpoint-root", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "hubert-base-ls960-kmeans-50  (layer 6, units only)" in told
    assert "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000  (layer 12, units and audio)" in told
    [there] = {line.split()[1] for line in told if line.endswith("  there")}
    assert there == "hubert_base_ls960.pt"
    # Four models of two files and four of six, of which six models have this one.
    assert sum(line.endswith("  missing") for line in told) == 4 * 2 + 4 * 6 - 6


def test_staging_an_unknown_model_lists_the_known_ones(tmp_path: Path) -> None:
    done = subprocess.run(
        [program("amela-sts"), "stage", "hubert", "--to", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no model 'hubert': take one of hubert-base-ls960-kmeans-50" in done.stderr

import json
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from amela.sts.v1.sts_pb2 import EncodeRequest, ResynthesizeRequest, SynthesizeRequest
from amela_client.entries import EntryProblem
from amela_client.manifest import Entry, Manifest
from amela_client.mirror import Mirror
from amela_client.results import Model
from amela_client.sts_stages import Encoding, Resynthesis, Synthesis
from amela_client.units import Units

NAMED = {"engine": "fairseq", "name": "tiny", "fingerprint": "0123456789abcdef"}
UNITS = Units(
    array("I", [7, 3]), array("I", [2, 1]), array("f"), 0.06, Model(**NAMED, device="cpu", warnings=())
)

EntryOf = Callable[..., Entry]


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "out", "/corpus", ".wav")


@pytest.fixture
def entry_of(tmp_path: Path) -> EntryOf:
    def make(**fields: object) -> Entry:
        path = tmp_path / "data.json"
        path.write_text(json.dumps({"audio_filepath": "/corpus/a.flac"} | fields) + "\n")
        entry = next(iter(Manifest(path)))
        assert isinstance(entry, Entry)
        return entry

    return make


def synthesize(mirror: Mirror, entry: Entry, **options: object) -> SynthesizeRequest:
    request = Synthesis(mirror=mirror, **options).request(entry)  # type: ignore[arg-type]
    assert isinstance(request, SynthesizeRequest)
    return request


def test_encoding_asks_for_the_stretch_and_what_was_asked_for(entry_of: EntryOf) -> None:
    request = Encoding(deduplicate=True, channel=1).request(entry_of(offset=2, duration=3.5))
    assert isinstance(request, EncodeRequest)
    assert (request.audio.start.seconds, request.audio.duration.seconds) == (2, 3)
    assert (request.audio.channel, request.deduplicate, request.dense_features) == (1, True, False)


def test_a_line_gains_units_durations_and_the_model(entry_of: EntryOf) -> None:
    assert Encoding().fields(entry_of(), UNITS) == {"units": [7, 3], "durations": [2, 1], "sts_model": NAMED}


def test_a_voice_is_asked_for_by_name_or_by_index(mirror: Mirror, entry_of: EntryOf) -> None:
    request = Resynthesis(mirror=mirror, speaker="ex02", style=0).request(entry_of())
    assert isinstance(request, ResynthesizeRequest)
    assert (request.voice.speaker_name, request.voice.WhichOneof("style")) == ("ex02", "style_index")
    plain = Resynthesis(mirror=mirror).request(entry_of())
    assert isinstance(plain, ResynthesizeRequest)
    assert plain.voice.WhichOneof("speaker") is None


def test_units_and_durations_of_a_line_are_sent(mirror: Mirror, entry_of: EntryOf) -> None:
    entry = entry_of(units=[1, 2], durations=[3, 4])
    request = synthesize(mirror, entry)
    assert (list(request.units), list(request.durations)) == ([1, 2], [3, 4])
    predicted = synthesize(mirror, entry, predict_durations=True)
    assert predicted.predict_durations and not predicted.durations


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "units: there are none"),
        ({"units": None}, "units: there are none"),
        ({"units": "1 2 3"}, "units is '1 2 3'"),
        ({"units": [1, 2.5]}, r"units\[1\] is 2\.5"),
        ({"units": [True]}, r"units\[0\] is True"),
        ({"units": [1, -1]}, r"units\[1\] is -1"),
        ({"units": [1 << 32]}, r"units\[0\] is 4294967296"),
        ({"units": [1], "durations": 2}, "durations is 2"),
        ({"units": [1], "durations": [None]}, r"durations\[0\] is None"),
    ],
)
def test_units_that_are_none_are_named(
    mirror: Mirror, entry_of: EntryOf, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(EntryProblem, match=said) as problem:
        synthesize(mirror, entry_of(**fields))
    assert problem.value.reason == "BAD_UNITS"


def test_a_file_that_is_there_is_not_made_again_unless_forced(mirror: Mirror, entry_of: EntryOf) -> None:
    entry = entry_of(units=[1])
    stages = (Resynthesis(mirror=mirror), Synthesis(mirror=mirror))
    assert [stage.present(entry) for stage in stages] == [None, None]
    mirror.folder.mkdir()
    (mirror.folder / "a.wav").mkdir()
    assert stages[0].present(entry) is None
    (mirror.folder / "a.wav").rmdir()
    (mirror.folder / "a.wav").write_bytes(b"RIFF")
    named = {"synthesized_filepath": str(mirror.folder / "a.wav")}
    assert [stage.present(entry) for stage in stages] == [named, named]
    assert Resynthesis(mirror=mirror, force=True).present(entry) is None
    assert Encoding(npz=mirror).present(entry) is None


def test_what_changes_results_makes_it_another_run(mirror: Mirror) -> None:
    plain = Resynthesis(mirror=mirror)
    assert Resynthesis(mirror=mirror, force=True).options == plain.options
    assert Resynthesis(mirror=mirror, speaker=1).options != plain.options
    assert Resynthesis(mirror=mirror, speaker="1").options != Resynthesis(mirror=mirror, speaker=1).options
    assert Encoding(deduplicate=True).options != Encoding().options
    # Entries that are done have their npz where the first run put it.
    assert Encoding(npz=mirror).options != Encoding().options
    assert Synthesis(mirror=mirror, predict_durations=True).options != Synthesis(mirror=mirror).options

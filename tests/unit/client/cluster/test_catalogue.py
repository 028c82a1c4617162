from pathlib import Path

import pytest
from amela_client.cluster.catalogue import ModelEntry, find_model, load_catalogue, parse_catalogue
from amela_client.errors import SetupError

TEXT = """
canary:
  stage: asr
  model: $AMELA_MODELS/canary
  engine: salm
  gpus: 1
  gpu_memory_mib: 16000
  cpus: 6
  memory: 32G
  time: 8:00:00
  options: [--precision, bf16]
units:
  stage: sts
  model: mhubert
  binds: ["${AMELA_MODELS}/textless"]
"""
VARIABLES = {"AMELA_MODELS": "/models"}


def test_an_entry_says_what_a_model_is_and_needs() -> None:
    entry = find_model(parse_catalogue(TEXT, "x.yaml"), "canary", "asr", VARIABLES)
    assert entry == ModelEntry(
        name="canary",
        stage="asr",
        model="/models/canary",
        engine="salm",
        gpus=1,
        gpu_memory_mib=16_000,
        cpus=6,
        memory="32G",
        # YAML alone would make 28800 of it.
        time="8:00:00",
        options=("--precision", "bf16"),
    )


def test_variables_of_the_site_stand_in_lists_too() -> None:
    entry = find_model(parse_catalogue(TEXT, "x.yaml"), "units", "sts", VARIABLES)
    assert entry.binds == ("/models/textless",)


@pytest.mark.parametrize("model", ["/models/my.nemo", "nvidia/canary-qwen-2.5b"])
def test_a_path_or_a_name_on_a_hub_needs_no_entry(model: str) -> None:
    assert find_model({}, model, "asr", {}) == ModelEntry(model, "asr", model)


@pytest.mark.parametrize(
    ("name", "stage", "words"),
    [
        ("canray", "asr", "no model in the catalogue is called 'canray'; there are: canary"),
        ("parakeet.nemo", "asr", "A path needs a slash: ./parakeet.nemo"),
        ("canary", "sts", "canary is for asr, not for sts"),
        ("canary", "asr", r"uses \$AMELA_MODELS, which is not set; set it in the site file"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(name: str, stage: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        find_model(parse_catalogue(TEXT, "x.yaml"), name, stage, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "x.yaml is not YAML"),
        ("a: \x00", "x.yaml is not YAML"),
        ('a: "\\UFFFFFFFF"', "x.yaml is not YAML"),
        ("a: " + "[" * 5000, "x.yaml is nested too deeply to be read"),
        ("? [a, b]\n: {stage: asr, model: m}", "x.yaml:1: a name must be a single word"),
        ("a:\n  stage: asr\n  ? {b: c}\n  : m", "x.yaml:3: a name must be a single word"),
        ("- a", "x.yaml:1: expected lines of the form 'name: value'"),
        ("a: b", "x.yaml:1: expected lines of the form"),
        ("a: {stage: asr, model: m}\na: {stage: asr, model: n}", "x.yaml:2: 'a' is there twice"),
        ("a:\n  stage: asr\n  model: m\n  stage: sts", "x.yaml:4: 'stage' is there twice"),
        ("a b: {stage: asr, model: m}", "x.yaml:1: 'a b' cannot be a short name"),
        ("a:\n  stage: asr", "x.yaml:2: a: the field model is missing"),
        ("a:\n  model: m", "x.yaml:2: a: the field stage is missing"),
        ("a:\n  stage: tts\n  model: m", "x.yaml:2: a: stage: 'tts' is not a stage: vad, asr, sts"),
        ("a:\n  stage: asr\n  model: m\n  gpu: 1", "x.yaml:4: a: gpu: there is no such field; .* gpus"),
        ("a:\n  stage: asr\n  model: m\n  name: b", "x.yaml:4: a: name: there is no such field"),
        ("a:\n  stage: asr\n  model: m\n  gpus: one", "x.yaml:4: a: gpus: 'one' is not a whole number"),
        ("a:\n  stage: asr\n  model: m\n  gpus: -1", "x.yaml:4: a: gpus: '-1' is not a whole number"),
        ("a:\n  stage: asr\n  model: m\n  memory: lots", "x.yaml:4: a: memory: 'lots' is not an amount"),
        ("a:\n  stage: asr\n  model: m\n  time: 8h", "x.yaml:4: a: time: '8h' is not a time limit"),
        ("a:\n  stage: asr\n  model: ./m", "x.yaml:3: a: model: './m' is not an absolute path"),
        ("a:\n  stage: asr\n  model: [m]", "x.yaml:3: a: model: give one value"),
        ("a:\n  stage: asr\n  model: m\n  options: --x", "x.yaml:4: a: options: give a list"),
        ("a:\n  stage: asr\n  model: m\n  options: [[--x]]", "x.yaml:4: a: options: give one value"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_entry_and_field(text: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        parse_catalogue(text, "x.yaml")


def test_an_empty_catalogue_has_no_entries() -> None:
    assert parse_catalogue("# nothing yet\n", "x.yaml") == {}


def test_a_tag_that_would_make_objects_makes_none() -> None:
    text = "a: {stage: asr, model: !!python/object/apply:os.getcwd []}"
    with pytest.raises(SetupError, match="give one value"):
        parse_catalogue(text, "x.yaml")


def test_the_catalogue_that_comes_with_the_package_is_sound() -> None:
    catalogue = load_catalogue(None)
    assert catalogue
    for name, entry in catalogue.items():
        assert find_model(catalogue, name, entry.stage, VARIABLES).name == name


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_catalogue_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "models.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=str(path)):
        load_catalogue(path)

from dataclasses import replace
from pathlib import Path

import pytest
from amela_client.cluster.catalogue import ModelEntry
from amela_client.cluster.plan import LaunchOptions, ServerPlan, gpus_of, make_plan
from amela_client.cluster.site import Site
from amela_client.errors import SetupError

CATALOGUE = {
    "canary": ModelEntry(
        "canary",
        "asr",
        "/models/canary",
        engine="salm",
        gpus=1,
        gpu_memory_mib=16_000,
        cpus=6,
        memory="32G",
        time="8:00:00",
        binds=("/models/extra",),
        options=("--precision", "bf16"),
    )
}
SITE = Site(
    partition="gpu",
    account="lab",
    qos="normal",
    sbatch=("--exclusive",),
    images=Path("/images"),
    audio_roots=(Path("/data"),),
    binds=("/scratch",),
    modules=("apptainer",),
    variables={"AMELA_PARTITION": "gpu", "TMPDIR": "/scratch/tmp"},
)


def plan(options: LaunchOptions, site: Site = SITE, name: str = "asr-3f9a2c") -> ServerPlan:
    return make_plan(options, site, CATALOGUE, name=name, registry=Path("/registry"), here=Path("/here"))


def test_what_nobody_asks_for_is_as_the_catalogue_and_the_site_have_it() -> None:
    assert plan(LaunchOptions("asr", model="canary")) == ServerPlan(
        name="asr-3f9a2c",
        stage="asr",
        registry=Path("/registry"),
        audio_roots=(Path("/data"),),
        image=Path("/images/asr.sif"),
        model="/models/canary",
        engine="salm",
        gpu_memory_mib=16_000,
        options=("--precision", "bf16"),
        binds=("/scratch", "/models/extra"),
        modules=("apptainer",),
        variables=(("TMPDIR", "/scratch/tmp"),),
        partition="gpu",
        account="lab",
        qos="normal",
        time="8:00:00",
        gres="gpu:1",
        cpus=6,
        memory="32G",
        sbatch=("--exclusive",),
    )


def test_options_come_before_the_catalogue_and_the_site() -> None:
    made = plan(
        LaunchOptions(
            "asr",
            model="canary",
            time="30:00",
            gres="gpu:a100:2",
            cpus=2,
            memory="8G",
            partition="short",
            account="me",
            qos="high",
            image=Path("/my.sif"),
            audio_roots=(Path("/mine"),),
            per_gpu=2,
            renew=True,
            options=("--queue", "9"),
        )
    )
    assert (made.time, made.gres, made.cpus, made.memory) == ("30:00", "gpu:a100:2", 2, "8G")
    assert (made.partition, made.account, made.qos) == ("short", "me", "high")
    assert (made.image, made.audio_roots) == (Path("/my.sif"), (Path("/mine"),))
    assert (made.per_gpu, made.renew) == (2, True)
    assert made.options == ("--precision", "bf16", "--queue", "9")


def test_an_empty_option_takes_away_what_the_catalogue_asks_for() -> None:
    made = plan(LaunchOptions("asr", model="canary", gres="", memory=""))
    assert (made.gres, made.memory) == ("", "")


def test_without_a_site_little_is_said() -> None:
    made = plan(LaunchOptions("vad"), Site(), name="vad-1")
    assert made == ServerPlan("vad-1", "vad", Path("/registry"), (Path("/here"),))
    assert made.folder == Path("/registry/launches/vad-1")


@pytest.mark.parametrize(
    ("time", "drain"), [("8:00:00", 100), ("10", 100), ("5", 50), ("1", 10), ("", None), ("UNLIMITED", None)]
)
def test_a_short_allocation_drains_for_a_sixth_of_it(time: str, drain: int | None) -> None:
    assert plan(LaunchOptions("vad", time=time)).drain_seconds == drain


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("", 0),
        ("gpu", 1),
        ("gpu:2", 2),
        ("gpu:a100", 1),
        ("gpu:a100:4", 4),
        ("gpu:2(S:0-1)", 2),
        ("gpu:a100:1(S:0,1),gpu:v100:2", 3),
        ("license:3", 0),
        ("shard:2,gpu:1", 1),
        ("gpu:1g.10gb:2", 2),
        ("gpus:2", 0),
    ],
)
def test_the_gpus_of_generic_resources_are_counted(gres: str, gpus: int) -> None:
    assert gpus_of(gres) == gpus


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LaunchOptions("tts"), "no stage 'tts': name one of vad, asr, sts"),
        (LaunchOptions("vad", model="canary"), "vad has one engine and no models"),
        (LaunchOptions("sts", model="canary"), "canary is for asr"),
        (LaunchOptions("asr", model="canry"), "there are: canary"),
        (LaunchOptions("asr", time="8h"), "--time '8h' is not a time limit"),
        (LaunchOptions("asr", per_gpu=0), "0 servers on a GPU"),
        (LaunchOptions("asr", audio_roots=(Path("/a:b"),)), "/a:b has a colon"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: LaunchOptions, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        plan(options)


@pytest.mark.parametrize("name", ["", "../x", "a b", "A", "-a", "a.b", "x" * 50])
def test_a_name_that_is_no_folder_and_no_jobs_name_is_refused(name: str) -> None:
    with pytest.raises(SetupError, match="cannot be a launch's name"):
        plan(LaunchOptions("vad"), name=name)


@pytest.mark.parametrize(
    "option",
    [
        *("--job-name=x", "-J", "-Jlab", "--job-nam=lab", "--output=/x", "-o", "-o/x", "--out=/x"),
        *("--array=0-3", "-a", "-a0-3", "--arr=0-3", "--clusters=x", "--cluster=x", "-M", "-Mother", "-HQMx"),
    ],
)
def test_the_site_cannot_take_away_what_a_launch_finds_its_jobs_by(option: str) -> None:
    with pytest.raises(SetupError, match=f"AMELA_SBATCH cannot set {option}"):
        plan(LaunchOptions("vad"), replace(SITE, sbatch=(option,)))


@pytest.mark.parametrize(
    "option",
    ["--account=x", "--open-mode=append", "--cluster-constraint=x", "-CM", "--", "-", "a100|M", "-pJ"],
)
def test_the_site_can_set_what_only_looks_like_it(option: str) -> None:
    assert plan(LaunchOptions("vad"), replace(SITE, sbatch=(option,))).sbatch == (option,)

import subprocess
from pathlib import Path

import pytest
from amela_client.cluster.site import Site, load_site, parse_site, registry_folder
from amela_client.errors import SetupError

PATH = Path("/etc/site.env")
EXAMPLE = Path(__file__).parents[4] / "slurm" / "site.env.example"
ENVIRONMENT = {"HOME": "/home/ann", "USER": "ann"}


def parse(text: str) -> Site:
    return parse_site(text, PATH, ENVIRONMENT)


def test_a_site_file_says_everything_in_a_few_lines() -> None:
    site = parse(
        """
        # the lab
        LAB=/lab/amela   # shared
        export AMELA_PARTITION=gpu
        AMELA_ACCOUNT='lab 7'
        AMELA_SBATCH="--constraint='a100|h200' --exclusive"
        AMELA_IMAGES=$LAB/images
        AMELA_REGISTRY="${LAB}/registry"
        AMELA_AUDIO_ROOT=/data/a:~/b
        AMELA_BINDS=/scratch,/models:/m:ro
        AMELA_MODULES="apptainer/1.4 cuda"
        """
    )
    assert site.partition == "gpu"
    assert site.account == "lab 7"
    assert site.sbatch == ("--constraint=a100|h200", "--exclusive")
    assert site.images == Path("/lab/amela/images")
    assert site.registry == Path("/lab/amela/registry")
    assert site.audio_roots == (Path("/data/a"), Path("/home/ann/b"))
    assert site.binds == ("/scratch", "/models:/m:ro")
    assert site.modules == ("apptainer/1.4", "cuda")
    assert site.job_variables == {"LAB": "/lab/amela"}


@pytest.mark.parametrize(
    "line",
    [
        "A=plain",
        "A=",
        "A=''",
        "A='it is $USER'",
        'A="it is $USER"',
        "A=$USER-${USER}x",
        'A="a \\"quoted\\" \\$USER \\\\ back"',
        "A=one\\ two",
        "A='mixed '\"quotes $USER\"' in one'",
        "A=~/x:~/y:z~",
        'A="~/x"',
        "A=no#comment",
        "A=value # a comment",
        "A=ünïcode-音",
        "export A=exported",
        "A=cost$",
    ],
)
def test_a_line_means_what_it_means_to_bash(line: str) -> None:
    bash = subprocess.run(
        ["bash", "-c", f'{line}\nprintf %s "$A"'], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert parse(line).variables["A"] == bash.stdout


def test_a_later_line_takes_the_place_of_an_earlier_one() -> None:
    assert parse("AMELA_QOS=a\nAMELA_QOS=b$AMELA_QOS").qos == "ba"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("AMELA_REGISTRY", "is not NAME=value"),
        ("AMELA_REGISTRY = /x", "is not NAME=value"),
        ("source other.env", "is not NAME=value"),
        ("1A=x", "is not NAME=value"),
        ("A=$(hostname)", "means more to a shell"),
        ('A="$(hostname)"', "means more to a shell"),
        ("A=`hostname`", "means more to a shell"),
        ("A=${USER:-x}", "means more to a shell"),
        ("A=a;b", "means more to a shell"),
        ("A=a&b", "means more to a shell"),
        ("A=$1", "means more to a shell"),
        ("A=$NOBODY", r"\$NOBODY, which is not set"),
        ("A=one two", "put the value in quotes"),
        ("A='open", "a quote that is not closed"),
        ('A="open', "a quote that is not closed"),
        ("AMELA_PARTITON=gpu", "did you mean AMELA_PARTITION"),
        ("AMELA_IMAGE=x.sif", "did you mean AMELA_IMAGES"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(line: str, words: str) -> None:
    with pytest.raises(SetupError, match=rf"^/etc/site.env:3: .*{words}"):
        parse(f"# a comment\n\n{line}\n")


@pytest.mark.parametrize("name", ["AMELA_REGISTRY", "AMELA_IMAGES", "AMELA_AUDIO_ROOT", "AMELA_CATALOGUE"])
def test_a_relative_path_is_refused(name: str) -> None:
    with pytest.raises(SetupError, match=f"{name}=x/y: give an absolute path"):
        parse(f"{name}=x/y")


def test_options_of_sbatch_with_an_open_quote_are_refused() -> None:
    with pytest.raises(SetupError, match="AMELA_SBATCH"):
        parse("""AMELA_SBATCH="--comment='x" """)


def test_the_example_can_be_read_and_is_what_bash_makes_of_it() -> None:
    site = parse_site(EXAMPLE.read_text(), EXAMPLE, ENVIRONMENT)
    script = (
        f'set -a; . {EXAMPLE}; for name in {" ".join(site.variables)}; do printf "%s\\n" "${{!name}}"; done'
    )
    bash = subprocess.run(["bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert bash.stdout.splitlines() == list(site.variables.values())


def test_without_a_site_file_everything_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AMELA_SITE", raising=False)
    assert load_site() == Site()


def test_the_site_file_is_the_one_given_then_that_of_the_variable_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "named"):
        (tmp_path / name).write_text(f"AMELA_QOS={name}\n")
    (tmp_path / ".amela").mkdir()
    (tmp_path / ".amela" / "site.env").write_text("AMELA_QOS=own\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AMELA_SITE", str(tmp_path / "named"))
    assert load_site(tmp_path / "given").qos == "given"
    assert load_site().qos == "named"
    monkeypatch.delenv("AMELA_SITE")
    assert load_site().qos == "own"


@pytest.mark.parametrize("mode", [0o775, 0o707])
def test_a_site_file_that_others_could_have_put_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AMELA_SITE", raising=False)
    own = tmp_path / ".amela"
    for folder in (own, tmp_path / "lab"):
        folder.mkdir()
        folder.chmod(mode)
    assert load_site() == Site()
    for folder in (own, tmp_path / "lab"):
        (folder / "site.env").write_text("AMELA_QOS=planted\n")
    with pytest.raises(SetupError, match=f"{own} can be written by others, .*; run: chmod go-w {own}"):
        load_site()
    # Who names another knows whose it is.
    assert load_site(tmp_path / "lab" / "site.env").qos == "planted"
    own.chmod(0o755)
    assert load_site().qos == "planted"


def test_a_site_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"there is none; copy slurm/site\.env\.example"):
        load_site(tmp_path / "absent.env")


@pytest.mark.parametrize("content", [b"A=\xff\xfe", None])
def test_a_site_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "site.env"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=str(path)):
        load_site(path)


def test_the_registry_is_the_variables_then_the_sites_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AMELA_REGISTRY", "/from/variable")
    site = parse("AMELA_REGISTRY=/from/site")
    assert registry_folder(site) == Path("/from/variable")
    monkeypatch.delenv("AMELA_REGISTRY")
    assert registry_folder(site) == Path("/from/site")
    assert registry_folder(Site()) == tmp_path / ".amela" / "registry"

"""The images' recipes, their locks and what our distributions say they need go together."""

import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "apptainer").glob("*.def"))
LOCKS = sorted((ROOT / "apptainer").glob("*.lock"))


def pins(lock: Path) -> Iterator[tuple[str, str]]:
    """Names, in one spelling, and versions, of the locks that a lock includes as well."""
    for line in lock.read_text().splitlines():
        if line.startswith("--requirement "):
            yield from pins(lock.with_name(line.split()[1]))
        elif line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.+-]+)", line).groups()  # type: ignore[union-attr]
            yield canonicalize_name(name), version


def installed(recipe: Path) -> tuple[str, list[str]]:
    """The lock and the distributions that a recipe installs."""
    text = recipe.read_text()
    defaults = dict(re.findall(r"^ +(\w+)=(\S+)$", text, re.MULTILINE))
    text = text.replace("{{ LOCK }}", defaults.get("LOCK", ""))
    [(lock, distributions)] = re.findall(r"apptainer/common/install (\S+) (.+)", text)
    return lock, ["protos", *distributions.split()]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_one_exact_version_of_each_package(lock: Path) -> None:
    versions: dict[str, str] = {}
    for name, version in pins(lock):
        assert versions.setdefault(name, version) == version


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_an_image_is_made_of_needs_nothing_that_its_lock_lacks(recipe: Path) -> None:
    lock, distributions = installed(recipe)
    versions = dict(pins(ROOT / lock))
    names = {f"amela-{Path(distribution).name}" for distribution in distributions}
    for distribution in distributions:
        project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
        for need in map(Requirement, project["dependencies"]):
            name = canonicalize_name(need.name)
            assert name in names or need.specifier.contains(versions[name]), (distribution, need)


@pytest.mark.parametrize("name", ["vad.lock", "client.lock", "embedded.lock"])
def test_what_a_lock_names_needs_nothing_that_it_lacks(name: str) -> None:
    versions = dict(pins(ROOT / "apptainer" / name))
    for package, version in versions.items():
        distribution = importlib.metadata.distribution(package)
        # The environment of the tests is made from these locks.
        assert distribution.version == version
        for need in map(Requirement, distribution.requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.specifier.contains(versions[canonicalize_name(need.name)]), (package, need)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_brings_along_all_that_it_installs(recipe: Path) -> None:
    brought = dict(re.findall(r"^ +(\S+) /build/(\S+)$", recipe.read_text(), re.MULTILINE))
    _, distributions = installed(recipe)
    for needed in ("apptainer/common", "tools/system-packages", "LICENSE", "NOTICE", *distributions):
        assert needed in brought
    for source, target in brought.items():
        assert source == target
        assert (ROOT / source).exists()
        for included in re.findall(r"^--requirement (.+)$", text_of(source), re.MULTILINE):
            assert f"apptainer/{included}" in brought


def text_of(source: str) -> str:
    return (ROOT / source).read_text() if source.endswith(".lock") else ""


def test_make_hands_the_source_revision_and_the_given_arguments_to_the_recipe() -> None:
    command = subprocess.run(
        ["make", "--dry-run", "image-sts", "BOOTSTRAP=localimage", "BASE=/base", "TEXTLESS=", "APPTAINER=x"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert re.search(r"--build-arg REVISION=([0-9a-f]{40}(-dirty)?|unknown) ", command)
    for argument in ("'BOOTSTRAP=localimage'", "'BASE=/base'", "'TEXTLESS='"):
        assert f"--build-arg {argument}" in command
    assert "FAIRSEQ" not in command
    assert "images/sts.sif apptainer/sts.def" in command

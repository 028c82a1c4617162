"""What is inside the images, and that what is outside stays outside."""

import json
import os
import re
from pathlib import Path

import pytest

from ..images_built import NAMES, ROOT, Images
from .conftest import NOBODY, apptainer

LOCKS = {"asr-embedded": "embedded"}
OURS = {
    "vad": {"amela-common", "amela-protos", "amela-vad"},
    "client": {"amela-client", "amela-protos"},
    "asr-embedded": {"amela-asr", "amela-common", "amela-protos"},
    "asr": {"amela-asr", "amela-common", "amela-protos"},
    "sts": {"amela-common", "amela-protos", "amela-sts"},
}


def spelled(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, str]:
    found = {}
    for line in lock.read_text().splitlines():
        if line.startswith("--requirement "):
            found |= pins(lock.with_name(line.split()[1]))
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            found[spelled(name)] = version
    return found


def shell(image: Path, script: str, *options: str, code: int = 0, **environment: str) -> str:
    return apptainer("exec", *options, image, "sh", "-c", script, code=code, **environment).stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_passes_its_own_test(all_images: Images, name: str) -> None:
    # A second look at what the build tried out: now the file system is read-only.
    apptainer("test", all_images(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_the_locks_packages_and_ours_and_lists_them(all_images: Images, name: str) -> None:
    image = all_images(name)
    listed = dict(line.split("==") for line in shell(image, "cat /opt/amela/packages.txt").splitlines())
    found = {spelled(package): version.partition("+")[0] for package, version in listed.items()}
    for package in OURS[name]:
        assert found.pop(package) == "0.1.0"
    wanted = pins(ROOT / "apptainer" / f"{LOCKS.get(name, name)}.lock")
    # A torch for GPUs brings CUDA's packages along.
    extra = {
        package for package in found.keys() - wanted if not package.startswith(("nvidia-", "triton", "cuda-"))
    }
    assert {package: found.get(package) for package in wanted} == wanted
    assert not extra


@pytest.mark.parametrize("name", NAMES)
def test_its_bill_of_materials_names_pythons_packages_and_debians(all_images: Images, name: str) -> None:
    bill = json.loads(shell(all_images(name), "cat /opt/amela/sbom.cdx.json"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = {component["purl"].partition("@")[0] for component in bill["components"]}
    assert {"pkg:pypi/grpcio", "pkg:deb/debian/libc++1", "pkg:deb/debian/libc6"} <= found


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is(all_images: Images, name: str) -> None:
    inspected = json.loads(apptainer("inspect", "--json", "--labels", all_images(name)).stdout)
    labels = inspected["data"]["attributes"]["labels"]
    assert labels["org.opencontainers.image.title"].startswith("AMELA: ")
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    assert "/opt/amela/packages.txt" in apptainer("run-help", all_images(name)).stdout
    assert "Apache License" in shell(all_images(name), "cat /opt/amela/LICENSE")
    assert "TEN" in shell(all_images(name), "cat /opt/amela/NOTICE")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_of_what_an_image_was_built_with(all_images: Images, name: str) -> None:
    script = """
        for program in pip gcc g++ git; do command -v "$program"; done
        ls -d /build /opt/amela/lib/python3*/site-packages/pip /root/.cache 2>/dev/null
        find /var/lib/apt/lists /var/cache/apt -type f
        find /opt/amela -type d -name tests
    """
    assert shell(all_images(name), script, "--contain") == ""


def test_the_client_has_its_job_scripts(images: Images) -> None:
    # In the sources, a link leads to them.
    script = "cd /opt/amela/lib/python3*/site-packages/amela_client/slurm && ls *.slurm"
    assert shell(images("client"), script).split() == sorted(
        path.name for path in (ROOT / "slurm").glob("*.slurm")
    )


def test_every_module_is_compiled(images: Images) -> None:
    # Or each start, and each worker's, would compile what it imports.
    script = "find /opt/amela/lib -name '*.py' | wc -l; find /opt/amela/lib -name '*.pyc' | wc -l"
    sources, compiled = map(int, shell(images("vad"), script).split())
    assert sources == compiled


def test_the_image_cannot_be_written_to(images: Images) -> None:
    for folder in ("/", "/opt/amela", "/usr/bin"):
        script = f"touch {folder}/new 2>&1"
        assert "Read-only file system" in shell(images("vad"), script, code=1)


def test_nothing_of_the_users_own_packages_gets_in(images: Images, scratch: Path) -> None:
    user_site = scratch / ".local/lib/python3.11/site-packages"
    user_site.mkdir(parents=True)
    for folder in (scratch, user_site):
        (folder / "numpy.py").write_text("raise SystemExit(1)")
    # The home folder becomes the working folder as well.
    script = "pwd; python -c 'import numpy; print(numpy.__file__)'"
    printed = shell(
        images("vad"), script, "--home", str(scratch), "--pwd", str(scratch), PYTHONPATH=str(scratch)
    )
    folder, numpy = printed.split()
    assert folder == str(scratch)
    assert numpy.startswith("/opt/amela/lib/")


def test_hubs_are_offline_unless_the_user_wants_them(images: Images) -> None:
    script = 'echo "$HF_HUB_OFFLINE $TRANSFORMERS_OFFLINE"'
    assert shell(images("vad"), script, HF_HUB_OFFLINE="0") == "1 1"
    assert shell(images("vad"), script, "--env", "HF_HUB_OFFLINE=0") == "0 1"


def test_models_that_the_user_has_are_found_where_they_are(images: Images) -> None:
    assert shell(images("vad"), 'echo "$HF_HOME"', HF_HOME="/models") == "/models"
    assert shell(images("vad"), 'echo "${XDG_CACHE_HOME-unset}"') == "unset"


CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")


def caches(image: Path, folder: Path) -> list[str]:
    script = "; ".join(f'echo "${name}"' for name in CACHES)
    return shell(image, script, "--bind", f"{folder}:/tmp").splitlines()


def test_caches_are_the_users_own_on_the_nodes_disk(images: Images, scratch: Path) -> None:
    paths = caches(images("vad"), scratch)
    assert len(set(paths)) == len(CACHES)
    assert all(Path(path).is_relative_to("/tmp/amela-0") for path in paths)
    assert (scratch / "amela-0").stat().st_mode & 0o777 == 0o700
    assert caches(images("vad"), scratch) == paths


@pytest.mark.parametrize("laid", ["folder", "link"])
def test_a_cache_that_somebody_else_laid_there_is_not_used(images: Images, scratch: Path, laid: str) -> None:
    # Whoever owns it could have put code there that the server would run.
    if laid == "folder":
        (scratch / "amela-0").mkdir(mode=0o777)
        os.chown(scratch / "amela-0", NOBODY, NOBODY)
    else:
        (scratch / "elsewhere").mkdir()
        (scratch / "amela-0").symlink_to("/tmp/elsewhere")
    for path in caches(images("vad"), scratch):
        assert path.startswith("/tmp/tmp.")

"""One user's servers, called by the users of a group and by nobody else: all with Unix ids of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

AS_USER = [sys.executable, str(Path(__file__).parent / "as_user.py")]
# Of nobody's, so that messages name numbers.
LAB = 64010
OWNER, MEMBER, STRANGER = 64001, 64002, 64003
GROUPS = {OWNER: f"{OWNER},{LAB}", MEMBER: f"{MEMBER},{LAB}", STRANGER: str(STRANGER)}

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let coverage be: these users cannot write where its data goes."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder that everybody can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o711)
        for user in GROUPS:
            home = place / str(user)
            home.mkdir(mode=0o700)
            (home / "data.json").write_text('{"audio_filepath": "/hello:0.01", "duration": 1.0}\n')
            for path in (home, home / "data.json"):
                os.chown(path, user, user)
        yield place


def registry_of(place: Path, mode: int, group: int = LAB) -> Path:
    registry = place / "registry"
    registry.mkdir()
    os.chown(registry, OWNER, group)
    registry.chmod(mode)
    return registry


@pytest.fixture
def serve(start_server: StartServer) -> Callable[[Path], None]:
    def start(registry: Path) -> None:
        start_server([*AS_USER, str(OWNER), GROUPS[OWNER], "server", "--audio-root", "/"], registry)

    return start


@pytest.fixture
def transcribe(place: Path) -> Call:
    """Transcribe one entry as a user; the end of a minute is for a client that hangs."""

    def call(user: int) -> "subprocess.CompletedProcess[str]":
        home = place / str(user)
        arguments = ["transcribe", "data.json", "-o", "out.json", "--registry", str(place / "registry")]
        return subprocess.run(
            [*AS_USER, str(user), GROUPS[user], "client", *arguments],
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


@pytest.mark.parametrize("mode", [0o750, 0o2750])
def test_members_of_the_registrys_group_are_served_and_others_are_told_whom_to_ask(
    mode: int, place: Path, serve: Callable[[Path], None], transcribe: Call
) -> None:
    registry = registry_of(place, mode)
    serve(registry)
    for path in registry.iterdir():
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (OWNER, LAB, 0o640), path

    for user in (OWNER, MEMBER):
        done = transcribe(user)
        assert done.returncode == 0, done.stderr
        assert '"hello"' in (place / str(user) / "out.json").read_text()

    refused = transcribe(STRANGER)
    assert refused.returncode == 1
    assert f"it is for the group {LAB} of {OWNER}'s; ask to be added to it" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_registry_that_is_not_shared_is_its_owners_alone(
    place: Path, serve: Callable[[Path], None], transcribe: Call
) -> None:
    serve(registry_of(place, 0o700))
    refused = transcribe(MEMBER)
    assert refused.returncode == 1
    assert f"ask {OWNER} to open it to a group" in refused.stderr


def test_a_registry_behind_a_closed_folder_is_refused_in_words(place: Path, transcribe: Call) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "inside").mkdir()
    (place / "registry").symlink_to(closed / "inside")
    refused = transcribe(STRANGER)
    assert refused.returncode == 1
    assert "a folder above it is closed to you" in refused.stderr


def test_a_server_opens_a_token_that_is_older_than_the_sharing(
    place: Path, serve: Callable[[Path], None], transcribe: Call
) -> None:
    registry = registry_of(place, 0o700)
    serve(registry)
    token = registry / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    registry.chmod(0o2750)
    refused = transcribe(MEMBER)
    assert refused.returncode == 1
    assert str(token) in refused.stderr

    serve(registry)
    assert (token.stat().st_gid, token.stat().st_mode & 0o777) == (LAB, 0o640)
    done = transcribe(MEMBER)
    assert done.returncode == 0, done.stderr


def test_a_group_that_the_owner_is_not_in_cannot_be_given_the_registry(place: Path) -> None:
    registry = registry_of(place, 0o750)
    started = subprocess.run(
        [*AS_USER, str(OWNER), str(OWNER), "server", "--audio-root", "/", "--registry", str(registry)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    assert f"the group {LAB}, which you are not in" in started.stderr
    assert not list(registry.iterdir())


def test_another_users_registry_is_no_place_for_a_server(place: Path) -> None:
    registry = registry_of(place, 0o2750)
    started = subprocess.run(
        [*AS_USER, str(MEMBER), GROUPS[MEMBER], "server", "--audio-root", "/", "--registry", str(registry)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    assert f"belongs to another user (uid {OWNER})" in started.stderr

import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from amela_common.audio import AudioLimits, AudioSource
from amela_common.audio.opening import open_audio
from amela_common.errors import RequestError

Refused = Callable[..., AbstractContextManager[None]]


def content(path: Path | str, limits: AudioLimits) -> bytes:
    with open_audio(AudioSource(path=str(path)), limits) as file:
        return file.read(100)


def test_a_file_below_a_root_opens(tmp_path: Path, limits: AudioLimits) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    assert content(tmp_path / "a.wav", limits) == b"abc"


def test_a_name_that_is_not_utf8_opens(tmp_path: Path, limits: AudioLimits) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    path.write_bytes(b"abc")
    assert content(path, limits) == b"abc"


def test_links_and_dots_that_stay_below_a_root_open(tmp_path: Path, limits: AudioLimits) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").write_bytes(b"abc")
    (tmp_path / "link.wav").symlink_to("sub/../a.wav")
    assert content(tmp_path / "link.wav", limits) == b"abc"
    assert content(f"{tmp_path}/sub/../link.wav", limits) == b"abc"


def test_every_root_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(name.encode())
    limits = AudioLimits(roots=tuple(str(tmp_path.resolve() / name) for name in ("one", "two")))
    assert content(tmp_path / "one" / "a.wav", limits) == b"one"
    assert content(tmp_path / "two" / "a.wav", limits) == b"two"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the limits of these tests do not allow."""
    path = tmp_path_factory.mktemp("outside") / "secret.wav"
    path.write_bytes(b"secret")
    return path


@pytest.mark.parametrize(
    "leads_outside",
    [
        lambda inside, outside: outside,
        lambda inside, outside: outside.parent,
        lambda inside, outside: outside.parent / "nothing here",
        lambda inside, outside: f"{inside}/../{outside.parent.name}/{outside.name}",
        lambda inside, outside: f"{inside}/nothing here/../../{outside.parent.name}/{outside.name}",
        lambda inside, outside: f"/proc/self/root{outside}",
        lambda inside, outside: "/dev/null",
    ],
    ids=["file", "folder", "missing", "dots", "missing dots", "proc", "device"],
)
def test_paths_outside_are_forbidden_whether_they_exist_or_not(
    leads_outside: Callable[[Path, Path], object],
    tmp_path: Path,
    outside: Path,
    limits: AudioLimits,
    refused: Refused,
) -> None:
    path = str(leads_outside(tmp_path, outside))
    with refused("PATH_FORBIDDEN", path, match=str(tmp_path)):
        content(path, limits)


def test_links_that_lead_outside_are_forbidden(
    tmp_path: Path, outside: Path, limits: AudioLimits, refused: Refused
) -> None:
    (tmp_path / "file.wav").symlink_to(outside)
    (tmp_path / "folder").symlink_to(outside.parent)
    (tmp_path / "dangling.wav").symlink_to(outside.parent / "nothing here")
    for path in ("file.wav", "folder/secret.wav", "dangling.wav"):
        with refused("PATH_FORBIDDEN", tmp_path / path):
            content(tmp_path / path, limits)


def test_a_root_is_a_folder_not_the_beginning_of_a_name(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "a.wav").write_bytes(b"abc")
    with refused("PATH_FORBIDDEN", tmp_path / "database" / "a.wav"):
        content(tmp_path / "database" / "a.wav", AudioLimits(roots=(f"{tmp_path.resolve()}/data",)))


def test_without_roots_no_path_is_allowed(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    with refused("PATH_FORBIDDEN", tmp_path / "a.wav", match="reads no paths"):
        content(tmp_path / "a.wav", AudioLimits())


def test_a_chain_of_a_thousand_links_is_refused(
    tmp_path: Path, limits: AudioLimits, refused: Refused
) -> None:
    (tmp_path / "0").write_bytes(b"abc")
    for number in range(1, 1500):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    with refused("PATH_FORBIDDEN", tmp_path / "1499"):
        content(tmp_path / "1499", limits)


def test_a_link_swapped_at_any_moment_never_leads_outside(
    tmp_path: Path, outside: Path, limits: AudioLimits
) -> None:
    (tmp_path / "inside.wav").write_bytes(b"inside")
    path, spare = tmp_path / "link.wav", tmp_path / "spare"
    path.symlink_to("inside.wav")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for target in (outside, "inside.wav"):
                spare.symlink_to(target)
                spare.replace(path)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[bytes] = set()
    try:
        for attempt in range(100_000):
            if attempt > 2000 and len(seen) > 1:
                break
            try:
                seen.add(content(path, limits))
            except RequestError as error:
                seen.add(error.reason.encode())
    finally:
        done.set()
        swapping.join()
    assert seen == {b"inside", b"PATH_FORBIDDEN"}


def test_a_missing_file_is_not_found(tmp_path: Path, limits: AudioLimits, refused: Refused) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    (tmp_path / "dangling.wav").symlink_to("nothing here")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name in ("nothing here", "dangling.wav", "loop.wav", "a.wav/b.wav", "x" * 300):
        with refused("AUDIO_NOT_FOUND", tmp_path / name):
            content(tmp_path / name, limits)


def test_what_is_not_a_file_is_refused_without_waiting(
    tmp_path: Path, limits: AudioLimits, refused: Refused
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with refused("AUDIO_NOT_A_FILE", tmp_path, match="directory"):
        content(tmp_path, limits)
    with refused("AUDIO_NOT_A_FILE", tmp_path / "fifo", match="FIFO"):
        content(tmp_path / "fifo", limits)
    with refused("AUDIO_NOT_A_FILE", "/dev/zero", match="device"):
        content("/dev/zero", AudioLimits(roots=("/dev",)))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with refused("AUDIO_NOT_A_FILE", tmp_path / "socket", match="socket"):
            content(tmp_path / "socket", limits)


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_a_file_without_permission_is_unreadable(locked: str) -> None:
    # Root may read anything, so the question is asked as nobody, who cannot enter pytest's own folder.
    program = """if True:
        import os, sys
        from amela_common.audio import AudioLimits, AudioSource
        from amela_common.audio.opening import open_audio
        from amela_common.errors import RequestError
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with open_audio(AudioSource(path=sys.argv[1]), AudioLimits(roots=("/",))):
                print("opened")
        except RequestError as error:
            print(error.reason)
    """
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "a.wav"
        path.write_bytes(b"abc")
        path.chmod(0 if locked == "file" else 0o644)
        folder.chmod(0 if locked == "folder" else 0o755)
        answer = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
        )
        folder.chmod(0o755)
    assert answer.stdout.strip() == "AUDIO_UNREADABLE"


def test_a_file_of_zero_bytes_is_empty(tmp_path: Path, limits: AudioLimits, refused: Refused) -> None:
    (tmp_path / "a.wav").touch()
    with refused("AUDIO_EMPTY", tmp_path / "a.wav"):
        content(tmp_path / "a.wav", limits)
    with refused("AUDIO_EMPTY"), open_audio(AudioSource(content=b""), limits):
        pass


def test_content_larger_than_the_server_takes_is_refused(refused: Refused) -> None:
    limits = AudioLimits(max_bytes=3)
    with open_audio(AudioSource(content=b"abc"), limits) as file:
        assert file.read() == b"abc"
    with refused("AUDIO_TOO_LARGE", match="4 bytes"), open_audio(AudioSource(content=b"abcd"), limits):
        pass


def test_a_failing_disk_is_the_servers_fault(refused: Refused) -> None:
    # A regular file whose first page cannot be read: EIO, as a bad disk or a lost NFS server gives it.
    with refused("STORAGE_FAILED", "/proc/self/mem", match=os.strerror(errno.EIO)):
        content("/proc/self/mem", AudioLimits(roots=("/proc",)))


def test_a_disk_that_fails_later_overrules_what_the_decoder_made_of_it(
    tmp_path: Path, limits: AudioLimits, refused: Refused
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"abc")
    source = AudioSource(path=str(path))
    with refused("STORAGE_FAILED", path), open_audio(source, limits) as file:
        descriptor = next(
            int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == path.resolve()
        )
        unreadable = os.open(tmp_path, os.O_RDONLY)
        os.dup2(unreadable, descriptor)
        os.close(unreadable)
        assert file.read(1) == b""
        raise source.error("AUDIO_TRUNCATED", "breaks off")


def test_no_descriptor_stays_open(tmp_path: Path, limits: AudioLimits) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    (tmp_path / "empty.wav").touch()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for name in ("a.wav", "empty.wav", "missing.wav", ".", "../outside.wav"):
        try:
            content(f"{tmp_path}/{name}", limits)
        except RequestError:
            continue
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

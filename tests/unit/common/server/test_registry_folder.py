"""Where servers register: who could put another folder in its place."""

import os
import stat
from pathlib import Path

import pytest
from amela_common.errors import ConfigError
from amela_common.server.registry_folder import RegistryFolder


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o022, 0o755), (0o077, 0o700)])
def test_folders_above_a_registry_are_made_so_that_only_their_owner_can_write_to_them(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        RegistryFolder(tmp_path / "a" / "b" / "registry").prepare()
    finally:
        os.umask(before)
    folders = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "registry"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [mode, mode, 0o700]


@pytest.mark.parametrize("mode", [0o775, 0o707, 0o1777])
def test_a_registry_in_a_folder_of_amelas_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".amela"
    RegistryFolder(own / "registry").prepare()
    own.chmod(mode)
    with pytest.raises(ConfigError, match=f"{own} can be written by others, .*; run: chmod go-w {own}"):
        RegistryFolder(own / "registry").prepare()
    own.chmod(0o755)
    RegistryFolder(own / "registry").prepare()
    # Of folders of their own, users know whom they share them with.
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    RegistryFolder(tmp_path / "shared" / "registry").prepare()


def test_a_registry_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/registry", "file/a/registry"):
        with pytest.raises(ConfigError, match="or name a folder that you can write to"):
            RegistryFolder(tmp_path / name).prepare()

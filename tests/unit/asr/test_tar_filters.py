"""Unpacking as NeMo does it, under a Python that cannot."""

import io
import stat
import tarfile
from pathlib import Path

import pytest
from amela_asr.engines.tar_filters import tar_filters


@pytest.fixture
def archive() -> tarfile.TarFile:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        weights = tarfile.TarInfo("model_weights.ckpt")
        weights.size, weights.mode = 4, 0o4777
        made.addfile(weights, io.BytesIO(b"abcd"))
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        made.addfile(pipe)
    content.seek(0)
    return tarfile.open(fileobj=content)


def test_files_are_unpacked_with_modes_of_our_own_and_nothing_but_files(
    archive: tarfile.TarFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with tar_filters():
        for member in archive.getmembers():
            archive.extract(member, str(tmp_path), filter="data")
    assert [path.name for path in tmp_path.iterdir()] == ["model_weights.ckpt"]
    assert (tmp_path / "model_weights.ckpt").read_bytes() == b"abcd"
    assert not (tmp_path / "model_weights.ckpt").stat().st_mode & (stat.S_ISUID | stat.S_IWOTH)


def test_tarfile_is_as_before_afterwards_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tarfile.TarFile.extract
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(ValueError, match="damaged"), tar_filters():
        assert tarfile.TarFile.extract is not before
        raise ValueError("damaged")
    assert tarfile.TarFile.extract is before


def test_a_tarfile_with_filters_is_left_alone() -> None:
    before = tarfile.TarFile.extract
    with tar_filters():
        assert tarfile.TarFile.extract is before

"""Files are what they claim to be before they are opened, and hostile ones run nothing."""

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from amela_common.errors import ConfigError
from amela_sts.checkpoints import catalogue
from amela_sts.checkpoints.integrity import checked
from amela_sts.checkpoints.kmeans import load_centres
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.checkpoints.staging import stage

DEFAULT = "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000"


def test_each_vocoded_model_is_made_of_six_published_files() -> None:
    models = catalogue.published_models()
    vocoded = [model for model in models.values() if model.vocoder]
    assert len(models) == 8
    assert [model.name for model in vocoded] == [
        "hubert-base-ls960-layer-9-kmeans-500",
        "hubert-base-ls960-layer-9-kmeans-expresso-2000",
        "mhubert-base-vp_mls_cv_8lang-kmeans-2000",
        DEFAULT,
    ]
    for model in vocoded:
        assert list(model.files) == ["dense", "kmeans", "vocoder", "vocoder_config", "speakers", "styles"]
    assert models[DEFAULT].layer == 12
    assert models["hubert-base-ls960-layer-9-kmeans-500"].layer == 9
    assert models["hubert-base-ls960-kmeans-50"].layer == 6
    assert all(len(file.sha256) == 64 for file in catalogue.published_files().values())


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"no model 'hubert'.*{DEFAULT}"):
        catalogue.published_model("hubert")


def test_a_model_with_missing_files_names_them_and_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "mhubert_base_vp_mls_cv_8lang_it3.pt").touch()
    with pytest.raises(ConfigError, match=r"L12_km2000_expresso\.pt.*amela-sts stage") as caught:
        ModelFiles.find(DEFAULT, tmp_path)
    assert "it3.pt," not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer = 1\ndense = 'd'\nkmeans = 'k'\nspeaker = 's'", "no such key: speaker"),
        ("dense = 'd'\nkmeans = 'k'", "layer must be a whole number"),
        ("layer = 0\ndense = 'd'\nkmeans = 'k'", "layer must be a whole number"),
        ("layer = 1\nkmeans = 'k'", "dense is missing"),
        ("layer = 1\ndense = 'd'\nkmeans = 'k'\nvocoder = 'v'", "vocoder and vocoder_config go together"),
        ("layer = 1\ndense = 'nowhere.pt'\nkmeans = 'k'", "'nowhere.pt': no such file"),
        ("layer = ", "not TOML"),
    ],
)
def test_a_model_file_that_is_wrong_says_where(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        ModelFiles.find(str(tmp_path / "model.toml"), tmp_path)


def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        ModelFiles.find(str(tmp_path / "nowhere.toml"), tmp_path)


def test_a_published_name_with_another_content_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hubert_base_ls960.pt"
    path.write_bytes(b"something else")
    with (
        pytest.raises(ConfigError, match=r"of the published file is 1703cf8d.*stage it again"),
        checked(path, trust=False, pickled=True),
    ):
        pytest.fail("it was opened")
    with checked(path, trust=True, pickled=True) as opened:
        assert opened.file.read() == b"something else"


def test_an_unknown_pickle_needs_to_be_vouched_for(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(b"anything")
    with (
        pytest.raises(ConfigError, match=r"not a published checkpoint's.*--trust"),
        checked(path, trust=False, pickled=True),
    ):
        pytest.fail("it was opened")
    with checked(path, trust=False, pickled=False) as opened:
        assert opened.sha256 == hashlib.sha256(b"anything").hexdigest()


@pytest.fixture
def centres() -> Any:
    return np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)


def _kmeans(path: Path, centres: Any) -> None:
    """Write what scikit-learn's estimators pickle to; the random state is of older versions."""
    sklearn = pytest.importorskip("sklearn.cluster")
    model = sklearn.MiniBatchKMeans(len(centres), n_init=1, init=centres, max_iter=1).fit(centres)
    model.cluster_centers_ = centres
    model.random_state_ = np.random.RandomState(0)
    joblib.dump(model, path)


def test_centres_are_those_of_the_estimator_and_are_kept_as_npz(tmp_path: Path, centres: Any) -> None:
    _kmeans(tmp_path / "km.bin", centres)
    first, digest = load_centres(tmp_path / "km.bin", trust=True)
    assert np.array_equal(first, centres)
    assert (tmp_path / "km.bin.npz").is_file()
    again, same = load_centres(tmp_path / "km.bin", trust=True)
    assert np.array_equal(again, centres)
    assert same == digest
    assert np.array_equal(load_centres(tmp_path / "km.bin.npz", trust=False)[0], centres)


def test_kept_centres_of_another_pickle_are_not_used(tmp_path: Path, centres: Any) -> None:
    _kmeans(tmp_path / "km.bin", centres)
    load_centres(tmp_path / "km.bin", trust=True)
    _kmeans(tmp_path / "km.bin", centres + 1)
    assert np.array_equal(load_centres(tmp_path / "km.bin", trust=True)[0], centres + 1)


def test_centres_load_from_a_folder_that_cannot_be_written(tmp_path: Path, centres: Any) -> None:
    _kmeans(tmp_path / "km.bin", centres)
    # Even root cannot write here: the name of the npz is taken by a folder that is not empty.
    (tmp_path / "km.bin.npz" / "taken").mkdir(parents=True)
    assert np.array_equal(load_centres(tmp_path / "km.bin", trust=True)[0], centres)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


class _Runs:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._trace}",)


def test_a_kmeans_that_would_run_code_runs_none_even_when_trusted(tmp_path: Path) -> None:
    path, trace = tmp_path / "km.bin", tmp_path / "trace"
    joblib.dump({"cluster_centers_": _Runs(trace)}, path)
    with pytest.raises(ConfigError, match=r"could run code: it names posix\.system"):
        load_centres(path, trust=True)
    assert not trace.exists()


def test_an_array_of_objects_in_a_kmeans_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_as_joblib_1_5_does(wrapper: Any, unpickler: Any, *_: Any) -> Any:
        return pickle.load(unpickler.file_handle)

    path, trace = tmp_path / "km.bin", tmp_path / "trace"
    joblib.dump({"cluster_centers_": np.array([_Runs(trace)], dtype=object)}, path)
    monkeypatch.setattr("joblib.numpy_pickle.NumpyArrayWrapper.read_array", read_as_joblib_1_5_does)
    with pytest.raises(ConfigError, match=r"could run code: it names posix\.system"):
        load_centres(path, trust=True)
    assert not trace.exists()


def test_an_array_of_names_in_a_kmeans_is_read(tmp_path: Path, centres: Any) -> None:
    sklearn = pytest.importorskip("sklearn.cluster")
    model = sklearn.MiniBatchKMeans(len(centres), n_init=1, init=centres, max_iter=1).fit(centres)
    model.cluster_centers_ = centres
    model.feature_names_in_ = np.array(["a", "b"], dtype=object)
    joblib.dump(model, tmp_path / "km.bin")
    assert np.array_equal(load_centres(tmp_path / "km.bin", trust=True)[0], centres)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2, 3])])
def test_what_is_no_kmeans_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "km.bin").write_bytes(content)
    with pytest.raises(ConfigError, match="not a k-means model"):
        load_centres(tmp_path / "km.bin", trust=True)


def test_a_kmeans_cut_short_is_refused(tmp_path: Path, centres: Any) -> None:
    _kmeans(tmp_path / "km.bin", centres)
    data = (tmp_path / "km.bin").read_bytes()
    for kept in (1, len(data) // 3, len(data) - 1):
        (tmp_path / "km.bin").write_bytes(data[:kept])
        with pytest.raises(ConfigError, match="not a k-means model"):
            load_centres(tmp_path / "km.bin", trust=True)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.float32), np.zeros((0, 4), np.float32), np.full((2, 2), np.nan), np.eye(2, dtype=int)],
)
def test_centres_that_cannot_be_centres_are_refused(array: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "km.npz", centres=array)
    with pytest.raises(ConfigError, match="not finite floats"):
        load_centres(tmp_path / "km.npz", trust=False)


def test_an_npz_with_objects_in_it_is_not_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    np.savez(tmp_path / "km.npz", centres=np.array([_Runs(trace)], dtype=object))
    with pytest.raises(ConfigError, match="not an npz"):
        load_centres(tmp_path / "km.npz", trust=True)
    assert not trace.exists()


def test_an_npz_damaged_anywhere_is_refused_or_read(tmp_path: Path, centres: Any) -> None:
    np.savez_compressed(tmp_path / "km.npz", centres=centres)
    sound = (tmp_path / "km.npz").read_bytes()
    refused = 0
    for at in range(0, len(sound), 3):
        (tmp_path / "km.npz").write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            load_centres(tmp_path / "km.npz", trust=False)
        except ConfigError:
            refused += 1
    assert refused > 100


def test_an_array_alone_is_no_npz(tmp_path: Path, centres: Any) -> None:
    with (tmp_path / "km.npz").open("wb") as file:
        np.save(file, centres)
    with pytest.raises(ConfigError, match="not an npz"):
        load_centres(tmp_path / "km.npz", trust=False)


def _published(folder: Path, centres: Any) -> catalogue.PublishedModel:
    """A model whose files lie in a folder as if on the publisher's server."""
    folder.mkdir()
    (folder / "dense.pt").write_bytes(b"dense")
    _kmeans(folder / "km.bin", centres)
    files = {
        part: catalogue.PublishedFile(
            part, name, (folder / name).as_uri(), hashlib.sha256((folder / name).read_bytes()).hexdigest()
        )
        for part, name in (("dense", "dense.pt"), ("kmeans", "km.bin"))
    }
    return catalogue.PublishedModel("tiny", 1, False, files)


def test_staging_fetches_checks_and_unpickles_once(
    tmp_path: Path, centres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _published(tmp_path / "server", centres)
    monkeypatch.setattr("amela_sts.checkpoints.integrity.published_files", lambda: model.files)
    told = list(stage(model, tmp_path / "new" / "folder"))
    assert [line.split()[0] for line in told] == ["fetched", "fetched", "centres"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "dense.pt",
        "km.bin",
        "km.bin.npz",
    ]
    # Staged once for a whole lab, if its user wants that.
    umask = os.umask(0)
    os.umask(umask)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "folder").iterdir()}
    assert modes == {0o666 & ~umask}
    assert [line.split()[0] for line in stage(model, tmp_path / "new" / "folder")] == [
        "there",
        "there",
        "centres",
    ]


def test_staging_leaves_nothing_of_a_download_that_is_not_the_published_file(
    tmp_path: Path, centres: Any
) -> None:
    model = _published(tmp_path / "server", centres)
    (tmp_path / "server" / "dense.pt").write_bytes(b"den")
    with pytest.raises(ConfigError, match="the download broke off"):
        list(stage(model, tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []


def test_staging_without_a_network_says_which_address_failed(tmp_path: Path, centres: Any) -> None:
    model = _published(tmp_path / "server", centres)
    gone = dataclasses.replace(model.files["dense"], url="http://127.0.0.1:9/dense.pt")
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9/dense\.pt: cannot be fetched"):
        list(stage(dataclasses.replace(model, files={"dense": gone}), tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []

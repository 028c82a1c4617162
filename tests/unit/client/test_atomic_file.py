import errno
from pathlib import Path

import pytest
from amela_client.atomic_file import replacing


def test_what_killed_writers_left_goes_and_what_a_live_one_writes_stays(tmp_path: Path) -> None:
    kept = [".out.json.mine.tmp", ".other.json.0123abcd.tmp", ".out.json.0123abcd"]
    for name in [*kept, ".out.json.0123abcd.tmp"]:
        (tmp_path / name).touch()
    with replacing(tmp_path / "out.json", sweep=True) as first:
        with replacing(tmp_path / "out.json", sweep=True) as second:
            second.write(b"second")
        first.write(b"first")
    assert (tmp_path / "out.json").read_bytes() == b"first"
    assert {path.name for path in tmp_path.iterdir()} == {"out.json", *kept}


def test_a_name_with_signs_of_patterns_is_meant_as_it_is(tmp_path: Path) -> None:
    for name in (".[ab].json.0123abcd.tmp", ".a.json.0123abcd.tmp"):
        (tmp_path / name).touch()
    with replacing(tmp_path / "[ab].json", sweep=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"[ab].json", ".a.json.0123abcd.tmp"}


def test_links_in_a_circle_are_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught, replacing(tmp_path / "loop"):
        pass
    assert caught.value.errno == errno.ELOOP

"""Fingerprints change with everything that results depend on, and with nothing else."""

import re
from pathlib import Path

import pytest
from amela_asr.fingerprint import fingerprint


def test_it_is_sixteen_hexadecimal_digits_and_the_same_each_time(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1234")

    first = fingerprint(1, "en-us", files=[weights])

    assert re.fullmatch("[0-9a-f]{16}", first)
    assert fingerprint(1, "en-us", files=[weights]) == first


def test_every_fact_and_every_byte_counts(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1234")
    other.write_bytes(b"1235")

    prints = [
        fingerprint(1, "2"),
        fingerprint("1", "2"),
        fingerprint("12"),
        fingerprint(1, "2", files=[one]),
        fingerprint(1, "2", files=[other]),
        fingerprint(1, "2", files=[one, other]),
        fingerprint(1, "2", files=[other, one]),
    ]

    assert len(set(prints)) == len(prints)


def test_where_a_file_lies_does_not_count(tmp_path: Path) -> None:
    one, copy = tmp_path / "one", tmp_path / "copy"
    one.write_bytes(b"1234")
    copy.write_bytes(b"1234")

    assert fingerprint(files=[one]) == fingerprint(files=[copy])


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fingerprint(files=[tmp_path / "missing"])

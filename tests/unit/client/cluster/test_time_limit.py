import pytest
from amela_client.cluster.time_limit import parse_time_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("30:00", 1800),
        ("0:45", 45),
        ("8:00:00", 28_800),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("2-00:00:00", 172_800),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_every_form_of_slurm_is_read(text: str, seconds: int | None) -> None:
    assert parse_time_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0:00", "8h", "1:2:3:4", "1-", "-5", "8:00:00 ", "1-2-3", "٣"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time limit.* such as 8:00:00"):
        parse_time_limit(text)

"""Time limits as SLURM writes them."""

import re

_FORMS = (
    r"(?P<minutes>\d+)",
    r"(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?",
)
_SECONDS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_UNLIMITED = {"unlimited", "infinite"}


def parse_time_limit(text: str) -> int | None:
    """Return the seconds of ``90`` (minutes), ``30:00``, ``8:00:00``, ``1-12``, …; None for ``UNLIMITED``.

    Raises
    ------
    ValueError
        If it is none of these, or no time at all.
    """
    if text.lower() in _UNLIMITED:
        return None
    for form in _FORMS:
        if match := re.fullmatch(form, text, re.ASCII):
            seconds = sum(int(value or 0) * _SECONDS[name] for name, value in match.groupdict().items())
            if seconds > 0:
                return seconds
    raise ValueError(
        f"{text!r} is not a time limit: write MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS,"
        " such as 8:00:00"
    )

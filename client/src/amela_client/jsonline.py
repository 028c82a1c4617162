"""JSON objects on one line, changed without touching what is not changed.

Numbers keep their spelling, and escapes and repeated names stay: only members that are named are replaced.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_WHITESPACE = re.compile(r"[ \t\n\r]*")


def dumps(value: object) -> str:
    """Return `value` as JSON on one line that UTF-8 can always carry: lone surrogates are escaped."""
    text = _ENCODER.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def with_fields(raw: str, fields: Mapping[str, object]) -> str:
    """Return the JSON object `raw` with `fields`: in place of members of the same names, or at its end."""
    if not _may_have(raw, fields):
        return _joined([raw.strip()[1:-1].strip(), dumps(dict(fields))[1:-1]])
    added = {name: f"{dumps(name)}: {dumps(value)}" for name, value in fields.items()}
    kept = _replaced(raw, fields, added)
    return _joined([kept, *added.values()])


def without_fields(raw: str, names: Collection[str]) -> str:
    """Return the JSON object `raw` without its members of these names."""
    return _joined([_replaced(raw, names, {})]) if _may_have(raw, names) else raw.strip()


def _replaced(raw: str, names: Collection[str], members: dict[str, str]) -> str:
    """Return the members of an object, as far apart as they are, without those of these names.

    The first of a name gives its place to that in `members`, which is taken out there.
    """
    kept, end = "", 0
    for name, span in _members(raw):
        member = members.pop(name, "") if name in names else raw[slice(*span)]
        if member:
            kept += (raw[end : span[0]] if kept else "") + member
        end = span[1]
    return kept


def _joined(members: Iterable[str]) -> str:
    return "{" + ", ".join(filter(None, members)) + "}"


def _may_have(raw: str, names: Collection[str]) -> bool:
    # A name that is not there in quotes can only be there with an escape in it.
    return "\\" in raw or any(f'"{name}"' in raw for name in names)


def _members(raw: str) -> Iterator[tuple[str, tuple[int, int]]]:
    position = _after_whitespace(raw, raw.index("{") + 1)
    while raw[position] != "}":
        name, end = _DECODER.raw_decode(raw, position)
        colon = _after_whitespace(raw, end)
        _, end = _DECODER.raw_decode(raw, _after_whitespace(raw, colon + 1))
        yield name, (position, end)
        position = _after_whitespace(raw, end)
        if raw[position] == ",":
            position = _after_whitespace(raw, position + 1)


def _after_whitespace(raw: str, position: int) -> int:
    match = _WHITESPACE.match(raw, position)
    assert match is not None
    return match.end()

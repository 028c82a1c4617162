"""The voices that a vocoder has, by name or by index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from amela.sts.v1.sts_pb2 import Voice
from amela_common.errors import ConfigError, RequestError


class VoiceIndex(NamedTuple):
    """A voice as the vocoder takes it."""

    speaker: int = 0
    style: int = 0


@dataclass(frozen=True)
class Voices:
    """Names in the order of their indices; empty where the vocoder has one only."""

    speakers: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    def find(self, voice: Voice) -> VoiceIndex:
        """Find what a request asks for.

        Raises
        ------
        RequestError
            UNSUPPORTED_OPTION, whose metadata's ``field`` says which part, if there is no such voice.
        """
        return VoiceIndex(
            _find(
                "speaker", voice.WhichOneof("speaker"), voice.speaker_name, voice.speaker_index, self.speakers
            ),
            _find("style", voice.WhichOneof("style"), voice.style_name, voice.style_index, self.styles),
        )


def read_names(path: Path | None, count: int, what: Literal["speakers", "styles"]) -> tuple[str, ...]:
    """Read names, one a line; without a file they are their indices.

    Raises
    ------
    ConfigError
        If there are not `count` different ones.
    """
    if path is None or not count:
        return tuple(map(str, range(count)))
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if len(names) > count or len(set(names)) != len(names):
        raise ConfigError(
            f"{path}: {len(set(names))} different names in {len(names)} lines for {count} {what}"
        )
    # textless's own lists may name fewer than the embedding has.
    return names + tuple(map(str, range(len(names), count)))


def _find(part: str, given: str | None, name: str, index: int, names: tuple[str, ...]) -> int:
    if given is None:
        return 0
    if given.endswith("_index"):
        if index < max(1, len(names)):
            return index
        asked = str(index)
    else:
        if name in names:
            return names.index(name)
        asked = repr(name)
    known = (
        f"it has {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
        if names
        else f"it has one {part} only"
    )
    raise RequestError("UNSUPPORTED_OPTION", f"no {part} {asked}: {known}", field=f"voice.{given}")

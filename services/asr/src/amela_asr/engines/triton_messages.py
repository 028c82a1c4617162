"""What travels to Triton and back beside the audio: options, answers, failures and a description, as JSON."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from amela_common.errors import RequestError

from amela_asr.engine import Capabilities, Options, Recognition, Word

AUDIO = "audio"
OPTIONS = "options"
ANSWER = "answer"

# Instead of options: asks for a `Description`. The audio is not looked at.
DESCRIBE = b'{"describe": true}'

_FAILURE = re.compile(r"\[([A-Z_]+)\] (.*)", re.DOTALL)


@dataclass(frozen=True)
class Description:
    """What runs in Triton."""

    engine: str
    model: str
    fingerprint: str
    device: str
    warnings: tuple[str, ...]
    max_piece_seconds: float
    capabilities: Capabilities


def encode_options(options: Options) -> bytes:
    """Write what differs from the defaults."""
    defaults = asdict(Options())
    return _write({key: value for key, value in asdict(options).items() if value != defaults[key]})


def decode_options(content: bytes) -> Options:
    """Read options; nothing at all stands for the defaults, as in Triton's warm-up requests.

    Raises
    ------
    RequestError
        INVALID_REQUEST.
    """
    text = content.strip(b"\0")
    try:
        return Options(**json.loads(text)) if text else Options()
    except (ValueError, TypeError) as error:
        raise RequestError(
            "INVALID_REQUEST", f"{OPTIONS} is not a JSON object of options: {error}", field=OPTIONS
        ) from error


def encode_recognition(recognition: Recognition) -> bytes:
    """Write an answer."""
    return _write(asdict(recognition))


def decode_recognition(content: bytes) -> Recognition:
    """Read an answer."""
    fields = json.loads(content)
    words = fields["words"]
    if words is not None:
        words = tuple(Word(*word) for word in words)
    return Recognition(fields["text"], words, fields["confidence"])


def encode_description(description: Description) -> bytes:
    """Write a description."""
    return _write(asdict(description))


def decode_description(content: bytes) -> Description:
    """Read a description; raises ValueError, KeyError or TypeError for one of another version."""
    fields = json.loads(content)
    capabilities = fields["capabilities"]
    capabilities["languages"] = tuple(capabilities["languages"])
    fields["capabilities"] = Capabilities(**capabilities)
    fields["warnings"] = tuple(fields["warnings"])
    return Description(**fields)


def encode_failure(error: RequestError) -> str:
    """Write a failure as Triton's message."""
    return f"[{error.reason}] {error.message}"


def decode_failure(message: str) -> RequestError | None:
    """Read a failure; None for a message of Triton's own."""
    match = _FAILURE.search(message)
    return RequestError(match[1], match[2]) if match else None


def _write(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

"""What a request asks for, held against what the engine can give."""

import re

from amela.asr.v1 import asr_pb2
from amela_common.errors import RequestError

from amela_asr.engine import Capabilities, Options

# A whole batch takes as long as its longest prompt and output. 40 s of fast speech are 256 tokens.
MAX_PROMPT = 4_000
MAX_NEW_TOKENS = 4_096
# As language models mark the turns of a talk, and SALM the place of the audio in a prompt.
_SPECIAL_TOKEN = re.compile(r"<\|.*?\|>", re.DOTALL)


def options_from_proto(message: asr_pb2.TranscribeOptions) -> Options:
    """Take a request's options as they are."""
    return Options(
        words=message.words,
        confidence=message.confidence,
        language=message.language or None,
        prompt=message.prompt or None,
        max_new_tokens=message.max_new_tokens or None,
    )


def check_options(options: Options, capabilities: Capabilities, model: str) -> None:
    """Refuse what would otherwise be ignored without a word, or hold up everybody else.

    Raises
    ------
    RequestError
        UNSUPPORTED_OPTION or INVALID_REQUEST, whose metadata's ``field`` names the option.
    """
    if options.words and not capabilities.word_times:
        raise _unsupported("words", f"{model} has no word times: ask for text alone")
    if options.confidence and not capabilities.word_confidence:
        raise _unsupported("confidence", f"{model} has no confidences: ask without them")
    if options.prompt is not None and not capabilities.prompt:
        raise _unsupported("prompt", f"{model} takes no prompt: leave it out")
    if options.max_new_tokens is not None and not capabilities.max_new_tokens:
        raise _unsupported("max_new_tokens", f"{model} has no limit of tokens to set: leave it out")
    if options.language is not None:
        _check_language(options.language, capabilities.languages, model)
    _check_prompt(options.prompt or "")
    if (options.max_new_tokens or 0) > MAX_NEW_TOKENS:
        raise _invalid(
            "max_new_tokens", f"{options.max_new_tokens:,} new tokens: ask for at most {MAX_NEW_TOKENS:,}"
        )


def _check_prompt(prompt: str) -> None:
    if len(prompt) > MAX_PROMPT:
        raise _invalid(
            "prompt", f"the prompt has {len(prompt):,} characters: give at most {MAX_PROMPT:,} of them"
        )
    if special := _SPECIAL_TOKEN.search(prompt):
        raise special_token(special[0])


def _check_language(language: str, languages: tuple[str, ...], model: str) -> None:
    # Tags are compared without regard to case: RFC 5646, section 2.1.1.
    if language.lower() in (known.lower() for known in languages):
        return
    cure = f"it knows {', '.join(languages)}" if languages else "leave the language out"
    raise _unsupported("language", f"{model} cannot be told to expect {language!r}: {cure}")


def special_token(token: str) -> RequestError:
    """Make the error of a prompt that would tell a model where turns or audio begin."""
    return _invalid(
        "prompt", f"the prompt holds {token[:40]!r}, a token that is not for prompts: leave it out"
    )


def _invalid(field: str, message: str) -> RequestError:
    return RequestError("INVALID_REQUEST", message, field=f"options.{field}")


def _unsupported(field: str, message: str) -> RequestError:
    return RequestError("UNSUPPORTED_OPTION", message, field=f"options.{field}")

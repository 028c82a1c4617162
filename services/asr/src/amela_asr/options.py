"""What a request asks for, held against what the engine can give."""

from amela.asr.v1 import asr_pb2
from amela_common.errors import RequestError

from amela_asr.engine import Capabilities, Options


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
    """Refuse what would otherwise be ignored without a word.

    Raises
    ------
    RequestError
        UNSUPPORTED_OPTION, whose metadata's ``field`` names the option.
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


def _check_language(language: str, languages: tuple[str, ...], model: str) -> None:
    # Tags are compared without regard to case: RFC 5646, section 2.1.1.
    if language.lower() in (known.lower() for known in languages):
        return
    cure = f"it knows {', '.join(languages)}" if languages else "leave the language out"
    raise _unsupported("language", f"{model} cannot be told to expect {language!r}: {cure}")


def _unsupported(field: str, message: str) -> RequestError:
    return RequestError("UNSUPPORTED_OPTION", message, field=f"options.{field}")

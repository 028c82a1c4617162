"""What travels to Triton and back."""

import pytest
from amela_asr.engine import Capabilities, Options, Recognition, Word
from amela_asr.engines import triton_messages as messages
from amela_common.errors import RequestError
from hypothesis import given
from hypothesis import strategies as st

texts = st.text()
words = st.builds(Word, texts, st.floats(0, 100), st.floats(0, 100), st.none() | st.floats(0, 1))
optional_texts = st.none() | texts


@given(
    st.builds(
        Options, st.booleans(), st.booleans(), optional_texts, optional_texts, st.none() | st.integers(1)
    )
)
def test_options_come_through(options: Options) -> None:
    assert messages.decode_options(messages.encode_options(options)) == options


@given(st.builds(Recognition, texts, st.none() | st.lists(words).map(tuple), st.none() | st.floats(0, 1)))
def test_recognitions_come_through(recognition: Recognition) -> None:
    assert messages.decode_recognition(messages.encode_recognition(recognition)) == recognition


@given(
    reason=st.from_regex(r"[A-Z][A-Z_]{0,30}", fullmatch=True), said=texts, before=st.text(alphabet="abc :")
)
def test_failures_come_through_whatever_triton_puts_before_them(reason: str, said: str, before: str) -> None:
    failure = messages.decode_failure(before + messages.encode_failure(RequestError(reason, said)))

    assert failure is not None
    assert (failure.reason, failure.message) == (reason, said)


@pytest.mark.parametrize(
    "said", ["", "Stub process 'm_0' is not healthy.", "[request id: 4] Exceeds maximum queue size"]
)
def test_a_message_of_tritons_own_is_no_failure_of_ours(said: str) -> None:
    assert messages.decode_failure(said) is None


def test_descriptions_come_through() -> None:
    description = messages.Description(
        "nemo", "m", "0" * 16, "cuda:0", ("slow",), 600.0, Capabilities(True, True, ("en", "de"))
    )

    assert messages.decode_description(messages.encode_description(description)) == description


@pytest.mark.parametrize("content", [b"", b"\0", b"{}"])
def test_no_options_are_the_defaults(content: bytes) -> None:
    assert messages.decode_options(content) == Options()


@pytest.mark.parametrize("content", [b"{", b"[]x", b"[1]", b'{"colour": "red"}', b"\xff\xfe", b"7"])
def test_what_is_no_options_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        messages.decode_options(content)
    assert refused.value.reason == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"engine": "nemo"}', b'{"text": "", "words": null}']
)
def test_a_description_of_another_version_is_told_from_ours(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        messages.decode_description(content)

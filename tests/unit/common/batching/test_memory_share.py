"""Servers that share a GPU, whose memory is a number."""

import pytest
from amela_common.batching.memory_share import CONTEXT_BYTES, MemoryShare
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
TOTAL = 80 * GIB


@given(st.integers(1, 16), st.floats(1, 200))
def test_shares_of_equal_size_never_take_more_than_the_gpu_has(servers: int, gib: float) -> None:
    total = int(gib * GIB)
    share = MemoryShare(total, total // servers)
    assert 0 <= share.fraction <= 1
    taken = CONTEXT_BYTES + round(share.fraction * total)
    assert servers * taken <= total or share.fraction == 0


def test_a_share_of_more_than_there_is_is_all_there_is() -> None:
    assert MemoryShare(TOTAL, 2 * TOTAL).fraction == 1


@pytest.mark.parametrize(
    ("free_on_gpu", "allocated", "expected"),
    [
        (70 * GIB, 5 * GIB, 15 * GIB - CONTEXT_BYTES),  # The share is what limits it.
        (3 * GIB, 5 * GIB, 3 * GIB),  # Others have taken more than their part.
        (70 * GIB, 20 * GIB, 0),  # The model takes all of it.
    ],
)
def test_batches_get_what_the_share_and_the_gpu_have_left(
    free_on_gpu: float, allocated: float, expected: float
) -> None:
    assert MemoryShare(TOTAL, 20 * GIB).free(free_on_gpu, allocated) == expected

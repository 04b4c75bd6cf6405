"""W3C trace context: what we say can be read by others, and what is not ours is nobody's."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.base.traces import Parent, parent_of, traceparent

CHAIN = "0af7651916cd43dd8448eb211c80319c"
OURS = Parent(UUID(CHAIN), 7)

READ: list[tuple[str, Parent | None]] = [
    (f"00-{CHAIN}-0000000000000007-01", OURS),
    # Whether it is sampled is nothing to us.
    (f"00-{CHAIN}-0000000000000007-00", OURS),
    # A later version may say more.
    (f"cc-{CHAIN}-0000000000000007-01", OURS),
    (f"cc-{CHAIN}-0000000000000007-01-what-the-future-brings", OURS),
    (f"cc-{CHAIN}-0000000000000007-01.what", None),
    (f"00-{CHAIN}-0000000000000007-01-more", None),
    (f"ff-{CHAIN}-0000000000000007-01", None),
    # No trace, no parent, and a parent that is larger than any id.
    (f"00-{'0' * 32}-0000000000000007-01", None),
    (f"00-{CHAIN}-0000000000000000-01", None),
    (f"00-{CHAIN}-8000000000000000-01", None),
    (f"00-{CHAIN.upper()}-0000000000000007-01", None),
    (f"00-{CHAIN}-7-01", None),
    (f"00-{CHAIN}-0000000000000007", None),
    (f" 00-{CHAIN}-0000000000000007-01", None),
    (f"00-{CHAIN}-0000000000000007-01\n", None),
    ("", None),
    ("nonsense", None),
]


@pytest.mark.parametrize(("text", "parent"), READ, ids=range(len(READ)))
def test_a_parent_is_read_as_the_standard_says(text: str, parent: Parent | None) -> None:
    assert parent_of(text) == parent


@given(st.uuids(allow_nil=False), st.integers(1, 2**63 - 1))
def test_what_is_said_is_read(correlation_id: UUID, execution: int) -> None:
    assert parent_of(traceparent(correlation_id, execution)) == Parent(correlation_id, execution)


@given(st.text())
def test_anything_can_be_read(text: str) -> None:
    parent_of(text)

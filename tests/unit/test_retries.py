"""Whether an execution is tried again, and after how long."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.base.states import ExecutionStatus
from attune.catalog.model import Action, Backoff
from attune.executions.retries import LONGEST_DELAY, RETRYABLE, delay, why_not

S = ExecutionStatus
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ACTION = Action(
    id=1,
    ref="shop.pay",
    label="Pay",
    description=None,
    created=NOW,
    updated=NOW,
    pack=1,
    pack_ref="shop",
    entrypoint="pay.sh",
    runtime_ref="core.shell",
    param_schema={},
    out_schema={},
    output_format="text",
    timeout_seconds=None,
    max_retries=3,
    retry_delay=10,
    retry_backoff="constant",
    retry_jitter=0,
    retry_on=["failed", "timeout"],
)


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        ("constant", [10, 10, 10, 10]),
        ("linear", [10, 20, 30, 40]),
        ("exponential", [10, 20, 40, 80]),
    ],
)
def test_delays_grow_as_the_action_says(backoff: str, delays: list[float]) -> None:
    assert [delay(replace(ACTION, retry_backoff=backoff), number, 0.3) for number in (1, 2, 3, 4)] == delays


@given(
    st.sampled_from(Backoff),
    st.floats(0, LONGEST_DELAY),
    st.floats(0, 1),
    st.integers(1, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_negative_nor_longer_than_a_day_and_jitter_stays_in_its_bounds(
    backoff: Backoff, base: float, jitter: float, number: int, noise: float
) -> None:
    action = replace(ACTION, retry_backoff=backoff.value, retry_delay=base)
    exact, jittered = delay(action, number, noise), delay(replace(action, retry_jitter=jitter), number, noise)

    assert 0 <= jittered <= LONGEST_DELAY
    if exact < LONGEST_DELAY:
        assert jittered <= exact * (1 + jitter) + 1e-6
        assert jittered >= min(exact * (1 - jitter), LONGEST_DELAY) - 1e-6


def test_the_middle_of_the_noise_changes_nothing() -> None:
    assert delay(replace(ACTION, retry_jitter=0.5), 1, 0.5) == 10
    assert delay(replace(ACTION, retry_jitter=0.5), 1, 0) == 5


@pytest.mark.parametrize(
    ("changes", "status", "retry_count", "reason"),
    [
        ({}, S.FAILED, 0, None),
        ({}, S.TIMEOUT, 2, None),
        ({}, S.FAILED, 3, "no retries left"),
        # What nobody asked to repeat is not: it may have happened.
        ({}, S.ABANDONED, 0, "action not retryable"),
        ({"retry_on": ["abandoned"]}, S.ABANDONED, 0, None),
        ({"retry_on": ["abandoned"]}, S.FAILED, 0, "action not retryable"),
        ({"max_retries": 0}, S.FAILED, 0, "action not retryable"),
        ({"retry_on": []}, S.FAILED, 0, "action not retryable"),
        # Somebody wanted it to stop; or it did what it should.
        ({}, S.CANCELLED, 0, "action not retryable"),
        ({}, S.COMPLETED, 0, "action not retryable"),
    ],
)
def test_it_is_tried_again_only_as_often_and_after_what_the_action_says(
    changes: dict[str, object], status: ExecutionStatus, retry_count: int, reason: str | None
) -> None:
    action = replace(ACTION, **changes)  # type: ignore[arg-type]

    assert why_not(action, status, retry_count, has_run=True) == reason
    if reason is None:
        assert status in RETRYABLE


def test_what_never_ran_or_has_no_action_any_more_is_not_tried_again() -> None:
    assert why_not(ACTION, S.FAILED, 0, has_run=False) == "action not retryable"
    assert why_not(None, S.FAILED, 0, has_run=True) == "action gone"

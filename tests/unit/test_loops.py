"""Loops: what counts is how often the rule itself stands among what has led to an event, and how fast that was."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.rules.loops import WINDOW, Firing, Loop, find, reason

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RULE, OTHER = 1, 2


def chain(*firings: tuple[int, float]) -> list[Firing]:
    """Rules and how many seconds ago they fired, the newest first. Executions count down from 100."""
    return [
        Firing(rule, 100 - place, NOW - timedelta(seconds=seconds)) for place, (rule, seconds) in enumerate(firings)
    ]


CASES: list[tuple[Sequence[Firing], Loop | None]] = [
    ([], None),
    (chain((RULE, 1), (RULE, 2)), None),
    (chain((RULE, 1), (RULE, 2), (RULE, 3)), Loop(3, 3.0, (98, 99, 100))),
    # Others do not count, and do not excuse.
    (chain((RULE, 1), (OTHER, 2), (RULE, 3), (OTHER, 4), (RULE, 5)), Loop(3, 5.0, (96, 98, 100))),
    (chain((OTHER, 1), (OTHER, 2), (OTHER, 3)), None),
    # A minute is the limit.
    (chain((RULE, 1), (RULE, 2), (RULE, 60)), Loop(3, 60.0, (98, 99, 100))),
    (chain((RULE, 1), (RULE, 2), (RULE, 61)), None),
    # A clock that went back does not make the seconds negative.
    (chain((RULE, -5), (RULE, -5), (RULE, -5)), Loop(3, 0.0, (98, 99, 100))),
]


@pytest.mark.parametrize(("ancestors", "loop"), CASES, ids=range(len(CASES)))
def test_a_loop_is_a_rule_that_fired_often_and_not_long_ago(ancestors: Sequence[Firing], loop: Loop | None) -> None:
    assert find(RULE, ancestors, NOW, 3) == loop


firings = st.lists(st.tuples(st.sampled_from([RULE, OTHER]), st.floats(0, 120))).map(
    lambda found: chain(*sorted(found, key=lambda one: one[1]))
)


@given(firings, st.integers(1, 5))
def test_a_loop_names_just_the_executions_of_its_rule_in_the_last_minute(ancestors: list[Firing], most: int) -> None:
    loop = find(RULE, ancestors, NOW, most)

    recent = [one.execution for one in ancestors if one.rule == RULE and NOW - one.at <= WINDOW]
    if len(recent) < most:
        assert loop is None
    else:
        assert loop is not None
        assert sorted(loop.executions, reverse=True) == recent
        assert loop.times == len(recent)
        assert 0 <= loop.seconds <= WINDOW.total_seconds()


@given(firings, firings, st.integers(1, 5))
def test_more_ancestors_never_end_a_loop(near: list[Firing], far: list[Firing], most: int) -> None:
    if find(RULE, near, NOW, most) is not None:
        assert find(RULE, [*near, *far], NOW, most) is not None


@given(firings, st.integers(1, 5))
def test_what_fires_at_a_slower_rate_is_never_stopped(ancestors: list[Firing], most: int) -> None:
    slow = [
        one._replace(at=NOW - place * (WINDOW / most + timedelta(seconds=1))) for place, one in enumerate(ancestors, 1)
    ]

    assert find(RULE, slow, NOW, most) is None


def test_the_reason_names_the_newest_executions() -> None:
    assert reason("shop.x", Loop(1, 0.5, (7,))) == (
        "a loop: the rule shop.x has caused the event that fires it once within 0.5 s, through execution 7, and is "
        "stopped here; rules.max_loops sets how often it may"
    )
    assert "7 times within 12 s, through executions …, 3, 4, 5, 6, 7, and" in reason(
        "shop.x", Loop(7, 12.04, (1, 2, 3, 4, 5, 6, 7))
    )

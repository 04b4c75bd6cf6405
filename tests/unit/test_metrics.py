"""What is measured is counted rightly, and bounded."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.telemetry.families import Family, Kind
from attune.telemetry.histogram import BOUNDS, Histogram
from attune.telemetry.metrics import MOST_ACTIONS, OTHER, Instruments
from tests.docs.reference import FAMILIES

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        # A bound belongs to the bucket below it.
        (0.001, "0.001"),
        (0.0011, "0.0025"),
        (3600.0, "3600.0"),
        (3600.1, "+Inf"),
        (0.0, "0.001"),
        # A clock that was set back.
        (-5.0, "0.001"),
    ],
)
def test_a_duration_is_counted_in_the_first_bucket_that_holds_it_and_in_all_above(seconds: float, bucket: str) -> None:
    histogram = Histogram()
    histogram.observe(seconds)

    counted = dict(histogram.buckets())
    assert next(bound for bound, count in counted.items() if count) == bucket
    assert list(counted.values()) == sorted(counted.values())
    assert counted["+Inf"] == 1
    assert histogram.sum == max(seconds, 0)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.001, 0.002, 0.3, 1.0, 299.0, 4_000.0])))
def test_counting_the_same_moments_together_comes_to_the_same_as_one_by_one(ages: Sequence[float]) -> None:
    together, alone = Histogram(), Histogram()

    together.observe_since((NOW - timedelta(seconds=age) for age in ages), NOW)
    for age in ages:
        alone.observe(age)

    assert together.buckets() == alone.buckets()
    assert together.sum == pytest.approx(alone.sum)


def test_the_bounds_ascend() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_actions_beyond_the_bound_share_a_label_and_those_before_keep_theirs() -> None:
    instruments = Instruments()
    for number in range(MOST_ACTIONS + 100):
        instruments.ended([("completed", f"many.action{number}"), ("failed", f"many.action{number}")])
    instruments.ended([("completed", "many.action0")] * 5)

    counted = next(metric for metric in instruments.collect() if metric.name == "attune_executions_ended").samples
    assert len(counted) == 2 * (MOST_ACTIONS + 1)
    values = {(one.labels["status"], one.labels["action_ref"]): one.value for one in counted}
    assert values["completed", OTHER] == values["failed", OTHER] == 100
    assert values["completed", "many.action0"] == 6


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_says_what_it_is(family: Family) -> None:
    """https://prometheus.io/docs/practices/naming"""
    assert family.name.startswith("attune_")
    assert (family.kind is Kind.COUNTER) == family.name.endswith("_total")
    assert family.kind is not Kind.HISTOGRAM or family.name.endswith("_seconds")
    assert family.text.endswith(".")

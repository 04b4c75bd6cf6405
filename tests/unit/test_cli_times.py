"""Times for people: here, to the second; and how long something took."""

import time
from collections.abc import Iterator

import pytest

from attune.cli import times
from attune.cli.talk import CommandError


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # As POSIX writes it: no file of zones is needed.
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# What the server sends, and what a person sees.
LOCAL: list[tuple[str, str]] = [
    ("2026-01-31T23:30:00Z", "2026-02-01 00:30:00"),
    ("2026-07-01T12:00:00.123456Z", "2026-07-01 14:00:00"),
    ("2026-07-01T12:00:00+02:00", "2026-07-01 12:00:00"),
    # Not times: these stay.
    ("2026-07-01", "2026-07-01"),
    ("at 2026-07-01T12:00:00Z", "at 2026-07-01T12:00:00Z"),
    ("shop.tell", "shop.tell"),
]


@pytest.mark.parametrize(("sent", "shown"), LOCAL)
def test_a_time_is_shown_here_to_the_second(sent: str, shown: str) -> None:
    assert times.local(sent) == shown


DURATIONS: list[tuple[float, str]] = [
    (-0.5, "0 ms"),
    (0.0123, "12 ms"),
    (1.26, "1.3 s"),
    (59.94, "59.9 s"),
    (59.97, "1 min 0 s"),
    (185, "3 min 5 s"),
    (3599.6, "1 h 0 min"),
    (7_800, "2 h 10 min"),
    (86_400 * 3 + 3_600 * 4, "3 d 4 h"),
]


@pytest.mark.parametrize(("seconds", "shown"), DURATIONS)
def test_a_duration_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert times.duration(seconds) == shown


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "1w", "1.5h", "24h ", "123456h"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="no span of time"):
        times.span(text)


def test_a_number_of_things_is_singular_or_plural() -> None:
    assert [times.counted(number, "event") for number in (0, 1, 2_000)] == ["0 events", "1 event", "2,000 events"]

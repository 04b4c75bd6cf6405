"""Schedules in words."""

from datetime import UTC, datetime

import pytest

from attune.base.json import JsonObject
from attune.sources.timers.params import from_params
from attune.sources.timers.words import in_words, timezone_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trigger", "params", "words"),
    [
        ("interval", {"interval": 1}, "every second"),
        ("interval", {"interval": 90}, "every 90 seconds"),
        ("interval", {"interval": 120}, "every 2 minutes"),
        ("interval", {"interval": 24, "unit": "hours"}, "every day"),
        ("cron", {"expression": "30 2 * * *"}, "at 02:30 every day"),
        ("cron", {"expression": "@hourly"}, "at the start of every hour"),
        ("datetime", {"fire_at": "2026-07-01T12:00Z", "timezone": "Asia/Tokyo"}, "once, at 2026-07-01 21:00:00"),
    ],
)
def test_a_schedule_says_when_it_fires(trigger: str, params: JsonObject, words: str) -> None:
    assert in_words(from_params(f"core.{trigger}timer", params, NOW)) == words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("FREQ=DAILY", "every day at 07:30"),
        ("FREQ=DAILY;BYHOUR=8,20;BYSECOND=5", "every day at 08:30:05 and 20:30:05"),
        ("FREQ=DAILY;BYHOUR=8,9,10,11,12", "every day at hour 8, 9, 10, 11 and 12 at minute 30 at second 0"),
        ("FREQ=WEEKLY;INTERVAL=2", "every 2 weeks on Monday at 07:30"),
        ("FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10", "every week on Monday and Wednesday at 07:30, 10 times"),
        ("FREQ=MONTHLY", "every month on day 5 at 07:30"),
        ("FREQ=MONTHLY;BYMONTHDAY=1,-1", "every month on day 1 and the last at 07:30"),
        ("FREQ=MONTHLY;BYDAY=2TU,-1FR", "every month on the 2nd Tuesday and the last Friday at 07:30"),
        ("FREQ=MONTHLY;BYDAY=SA,SU;BYSETPOS=1", "every month on Saturday and Sunday at 07:30, of these the 1st"),
        ("FREQ=YEARLY;COUNT=1", "every year in January on day 5 at 07:30, once"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "every year in week 20 on Monday at 07:30"),
        ("FREQ=YEARLY;BYYEARDAY=100", "every year on day of the year 100 at 07:30"),
        ("FREQ=YEARLY;BYDAY=11MO,-2SU", "every year on the 11th Monday and the 2nd from the end Sunday at 07:30"),
        ("FREQ=HOURLY;INTERVAL=6", "every 6 hours"),
        ("FREQ=MINUTELY;BYHOUR=8,9;BYDAY=SA", "every minute on Saturday at hour 8 and 9"),
        ("FREQ=DAILY;UNTIL=20261231", "every day at 07:30, until 2026-12-31 23:59:59"),
    ],
)
def test_a_recurrence_says_when_it_fires(rule: str, words: str) -> None:
    params: JsonObject = {"dtstart": "2026-01-05T07:30", "rule": rule, "timezone": "Europe/Berlin"}
    schedule = from_params("core.rruletimer", params, NOW)
    assert in_words(schedule) == words
    assert timezone_of(schedule) == "Europe/Berlin"


def test_an_interval_goes_by_no_clock_and_is_shown_in_utc() -> None:
    assert timezone_of(from_params("core.intervaltimer", {}, NOW)) == "UTC"

"""When people are told that the disk fills, and that history does not go."""

from datetime import timedelta
from pathlib import Path

from attune.database.storage import Storage
from attune.upkeep.alarms import disk_low, retention_behind
from attune.upkeep.alerts import Kind, Severity
from attune.upkeep.retention import Account
from tests.support.clock import START, VirtualClock


async def test_a_disk_that_fills_is_told_of_while_it_does(tmp_path: Path) -> None:
    free = 100
    storage = Storage([tmp_path], min_free=1_000, clock=VirtualClock(), free=lambda _: free)
    watch = disk_low(storage, lambda: START)
    assert watch() == ()

    await storage.look()
    (alarm,) = watch()
    free = 2_000
    await storage.look()

    assert (alarm.kind, alarm.severity, alarm.subject, alarm.first) == (Kind.DISK_LOW, Severity.ERROR, "storage", START)
    assert str(tmp_path) in alarm.message
    assert watch() == ()


def test_retention_that_does_not_keep_up_is_told_of_from_a_day_on() -> None:
    account = Account()
    watch = retention_behind(account, lambda: START)
    account.overdue["event"] = timedelta(days=1)
    assert watch() == ()

    account.overdue["event"] = timedelta(days=2.5)

    (alarm,) = watch()
    assert alarm.message == "Retention is 2.5 days behind: there is history that should be gone by now."
    assert (alarm.kind, alarm.severity) == (Kind.RETENTION_BEHIND, Severity.WARNING)
    assert (alarm.first, alarm.last) == (START - timedelta(days=2.5), START)

"""What people are told of beside dead letters, failures and loops: a disk that fills, and history that does not go."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attune.database.storage import Storage
from attune.upkeep.alerts import Alarm, Kind, Severity, Watch
from attune.upkeep.doctor import BEHIND
from attune.upkeep.retention import Account


def disk_low(storage: Storage, now: Callable[[], datetime]) -> Watch:
    """Watches whether there is room to write."""

    def watch() -> Sequence[Alarm]:
        refusal = storage.refusal()
        if refusal is None:
            return ()
        at = now()
        return [
            Alarm(
                kind=Kind.DISK_LOW,
                severity=Severity.ERROR,
                subject="storage",
                message=refusal.message,
                remedy="attune space",
                first=at,
                last=at,
            )
        ]

    return watch


def retention_behind(account: Account, now: Callable[[], datetime]) -> Watch:
    """Watches whether what is old goes."""

    def watch() -> Sequence[Alarm]:
        if account.most_overdue <= BEHIND:
            return ()
        at = now()
        days = account.most_overdue / timedelta(days=1)
        return [
            Alarm(
                kind=Kind.RETENTION_BEHIND,
                severity=Severity.WARNING,
                subject="retention",
                message=f"Retention is {days:.1f} days behind: there is history that should be gone by now.",
                remedy="attune space",
                first=at - account.most_overdue,
                last=at,
            )
        ]

    return watch

"""What is wrong with a server, and what to do: checks on facts that somebody else has gathered."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from attune.catalog.definitions import Definitions
from attune.sources.timers.firing import timer_of
from attune.sources.timers.queries import TimerRow
from attune.upkeep.recovery import Recovery, report
from attune.workers.scripts import script_path

STUCK = timedelta(minutes=5)
"""How long a delivery may wait. The last try of one that fails comes after a minute and a half."""
LATE = timedelta(minutes=1)
SKEW = timedelta(seconds=2)
BEHIND = timedelta(days=1)
"""How old a row may be beyond what is kept."""
_NAMED = 5
_WANTED = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

CHECKS: Mapping[str, str] = {
    "server": "A server answers.",
    "data-directory": "The data directory is there, and only the user of Attune can change it or read its secrets.",
    "free-space": "There is room where the data lies.",
    "leftovers": "Nothing is left of a server that did not end cleanly.",
    "root": "Attune does not run as root.",
    "database": "The database answers the server.",
    "durability": "The database keeps what it has confirmed.",
    "migrations": "The tables are those of this release.",
    "clock": "The clocks of the server and of its database agree.",
    "ingress": "What comes from outside is taken.",
    "dead-letters": "No delivery was given up.",
    "unroutable": "Every message has a queue.",
    "rescued": "No delivery had to be found by the sweep.",
    "queues": "What waits in the queues is taken.",
    "stuck": "Something moves every execution that has not ended.",
    "recovery": "The last start found nothing that had been interrupted.",
    "timers": "Timers can be read, and fire in time.",
    "retention": "What is too old is removed.",
    "rules": "What enabled rules name is there.",
    "actions": "The scripts of actions are there and can be read.",
    "packs": "Every pack is loaded.",
    "anonymous": "Nobody may read without signing in.",
    "administrator": "Somebody can sign in.",
}
"""Every check, and what it makes sure of."""


class Level(StrEnum):
    OK = "ok"
    HINT = "hint"
    """It works, and somebody should know."""
    PROBLEM = "problem"
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; unless all is well, what is wrong and what to do."""

    check: str
    level: Level
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks on a running server look at. `settings` are those of the database, `refusals` says why nothing is
    taken from outside, `waiting` are the number and the oldest of the deliveries of each queue, `overdue` is how old,
    beyond what is kept, the oldest row is that can go."""

    now: datetime
    database_now: datetime
    settings: Mapping[str, str]
    applied: Sequence[str]
    migrations: Sequence[str]
    refusals: Sequence[str]
    dead_letters: int
    unroutable: Mapping[str, int]
    rescued: Mapping[str, int]
    waiting: Mapping[str, tuple[int, datetime]]
    stuck: Sequence[int]
    recovery: Recovery
    timers: Sequence[TimerRow]
    overdue: timedelta
    is_root: bool
    anonymous: bool
    has_administrator: bool


def examine(facts: Facts, definitions: Definitions) -> list[Finding]:
    """What all checks on a running server have found."""
    return [
        Finding("database", Level.OK),
        _durability(facts),
        _migrations(facts),
        _clock(facts),
        judged(
            "ingress",
            facts.refusals,
            "Make room on the disk; attune bus queues shows where deliveries wait, and attune status what runs.",
        ),
        _counted(
            "dead-letters",
            {"given up": facts.dead_letters},
            "attune bus dead list shows them: replay them when what was wrong is mended, or discard them.",
        ),
        _counted("unroutable", facts.unroutable, "This is a defect of Attune: please report it."),
        _counted("rescued", facts.rescued, "Nothing was lost, but late. This is a defect of Attune: please report it."),
        _queues(facts),
        _stuck(facts),
        _recovery(facts.recovery),
        _timers(facts),
        _retention(facts.overdue),
        _rules(definitions),
        _actions(definitions),
        root(facts.is_root),
        _anonymous(facts.anonymous),
        _administrator(facts.has_administrator),
    ]


def judged(check: str, problems: Sequence[str], remedy: str, level: Level = Level.PROBLEM) -> Finding:
    """All is well without problems; else the first of them, and how many more there are."""
    if not problems:
        return Finding(check, Level.OK)
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return Finding(check, level, "; ".join(problems[:_NAMED]) + more, remedy)


def root(is_root: bool) -> Finding:
    """Whether Attune runs as root."""
    found = ["Attune runs as root, and so does every action of every pack"] if is_root else []
    return judged("root", found, "Run it as a user of its own.", Level.HINT)


def _durability(facts: Facts) -> Finding:
    wrong = [
        f"{name} is {facts.settings.get(name)}" for name, good in _WANTED.items() if facts.settings.get(name) != good
    ]
    return judged(
        "durability",
        wrong,
        "After a power failure, events that were accepted may be gone. Set them to on in the database's settings.",
    )


def _migrations(facts: Facts) -> Finding:
    missing = [f"{name} is missing" for name in facts.migrations if name not in facts.applied]
    foreign = [f"{name} is unknown to this release" for name in facts.applied if name not in facts.migrations]
    return judged("migrations", missing + foreign, "Restart Attune: it brings the tables up to date.")


def _clock(facts: Facts) -> Finding:
    skew = facts.database_now - facts.now
    ahead = "ahead" if skew > timedelta() else "behind"
    found = [f"the clock of the database is {abs(skew.total_seconds()):.0f} s {ahead}"] if abs(skew) > SKEW else []
    return judged("clock", found, "Let NTP set the clocks of both machines.")


def _counted(check: str, counts: Mapping[str, int], remedy: str) -> Finding:
    return judged(check, [f"{count} {name}" for name, count in counts.items() if count], remedy)


def _queues(facts: Facts) -> Finding:
    stuck = [
        f"{count} in {name}, the oldest since {_minutes(facts.now - oldest)}"
        for name, (count, oldest) in sorted(facts.waiting.items())
        if facts.now - oldest > STUCK
    ]
    return judged(
        "queues", stuck, "attune bus queues shows what moves; attune status what runs. The log of the server says more."
    )


def _stuck(facts: Facts) -> Finding:
    found = [f"execution {number} waits, and no delivery moves it" for number in facts.stuck]
    return judged(
        "stuck",
        found,
        "This is a defect of Attune: please report it. attune execution cancel ID ends one; rerun runs it again.",
    )


def _recovery(recovery: Recovery) -> Finding:
    is_hurt = recovery.predecessor is not None or recovery.interrupted
    return judged(
        "recovery",
        list(report(recovery)) if is_hurt else [],
        "Look at what was abandoned (attune why execution ID); attune execution rerun ID runs it again.",
        Level.HINT,
    )


def _timers(facts: Facts) -> Finding:
    return judged(
        "timers",
        list(_wrong_timers(facts)),
        "attune rule show NAME shows a rule's schedule; a save checks it. Timers that are late mean a busy server.",
    )


def _wrong_timers(facts: Facts) -> Iterator[str]:
    for row in facts.timers:
        if row.next_fire_at is None:
            continue
        if timer_of(row) is None:
            yield f"the schedule of {row.rule_ref} cannot be read"
        elif facts.now - row.next_fire_at > LATE:
            yield f"{row.rule_ref} is {_minutes(facts.now - row.next_fire_at)} late"


def _retention(overdue: timedelta) -> Finding:
    found = [f"rows that are {overdue.days} days too old are not removed yet"] if overdue > BEHIND else []
    return judged(
        "retention",
        found,
        "While much waits in the queues it waits, too. attune space and attune bus queues tell more.",
    )


def _rules(definitions: Definitions) -> Finding:
    return judged(
        "rules",
        [f"{ref}: {what}" for ref, what in _wrong_rules(definitions)],
        "Bring back what is gone, change the rule (attune rule edit), or disable it.",
    )


def _wrong_rules(definitions: Definitions) -> Iterator[tuple[str, str]]:
    for rule in definitions.rules.by_id.values():
        if not rule.enabled:
            continue
        if rule.trigger_ref not in definitions.triggers.by_ref:
            yield rule.ref, f"there is no trigger {rule.trigger_ref}"
        if rule.action_ref not in definitions.actions.by_ref:
            yield rule.ref, f"there is no action {rule.action_ref}"


def _actions(definitions: Definitions) -> Finding:
    return judged(
        "actions", list(_wrong_actions(definitions)), "Put the script there, and let the user of Attune read it."
    )


def _wrong_actions(definitions: Definitions) -> Iterator[str]:
    for action in definitions.actions.by_id.values():
        pack = definitions.packs.by_ref.get(action.pack_ref)
        path = None if pack is None else script_path(action, pack)
        if path is not None and not path.is_file():
            yield f"{action.ref}: {path} is missing"
        elif path is not None and not os.access(path, os.R_OK):
            yield f"{action.ref}: {path} cannot be read"


def _anonymous(is_on: bool) -> Finding:
    found = ["everybody on this machine may read definitions, events and executions"] if is_on else []
    return judged("anonymous", found, "Leave --demo away, and auth.anonymous off.", Level.HINT)


def _administrator(has_one: bool) -> Finding:
    found = [] if has_one else ["no administrator has a password, so only this machine's command line gets in"]
    return judged(
        "administrator", found, "If you need the API from elsewhere: attune identity passwd admin", Level.HINT
    )


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"

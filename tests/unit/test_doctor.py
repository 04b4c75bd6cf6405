"""What the doctor finds, check by check: facts that are well, and one thing at a time that is not."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attune.base.installation import Installation
from attune.catalog.definitions import Definitions
from attune.catalog.model import Action, Pack, Rule, Trigger
from attune.sources.timers.queries import TimerRow
from attune.upkeep import doctor, premises
from attune.upkeep.doctor import CHECKS, Facts, Finding, Level
from attune.upkeep.recovery import Recovery

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"

TIMER = TimerRow(
    rule=1,
    rule_ref="shop.often",
    trigger=1,
    trigger_ref="core.intervaltimer",
    trigger_params={"unit": "hours", "interval": 1},
    generation=1,
    anchor=NOW,
    next_fire_at=NOW + timedelta(minutes=5),
    last_fired_at=None,
    execution_count=0,
)
WELL = Facts(
    now=NOW,
    database_now=NOW + timedelta(seconds=1),
    settings={"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"},
    applied=["0001_bus.sql", "0002_access.sql"],
    migrations=["0001_bus.sql", "0002_access.sql"],
    refusals=[],
    dead_letters=0,
    unroutable={},
    rescued={"attune.events.queue": 0},
    waiting={"attune.events.queue": (3, NOW - timedelta(minutes=4))},
    stuck=[],
    recovery=Recovery(NOW),
    timers=[TIMER, replace(TIMER, next_fire_at=NOW - timedelta(seconds=30)), replace(TIMER, next_fire_at=None)],
    overdue=timedelta(hours=20),
    is_root=False,
    anonymous=False,
    has_administrator=True,
)


def definitions(tmp_path: Path, kind: str = "", **changes: Any) -> Definitions:
    """A pack with a trigger, a script that is there, and a rule; one of a kind changed."""
    common: dict[str, Any] = {
        "description": None,
        "created": NOW,
        "updated": NOW,
        "pack": 1,
        "pack_ref": "shop",
        "id": 1,
    }
    made: dict[str, Any] = {
        "pack": Pack(
            1, "shop", "Shop", None, NOW, NOW, "1.0.0", {}, {}, {}, [], [], [], False, storage_path=str(tmp_path)
        ),
        "trigger": Trigger(ref="shop.sold", label="Sold", enabled=True, param_schema={}, out_schema={}, **common),
        "action": Action(
            ref="shop.charge",
            label="Charge",
            entrypoint="charge.sh",
            runtime_ref="core.shell",
            param_schema={},
            out_schema={},
            output_format="text",
            timeout_seconds=None,
            max_retries=0,
            retry_delay=10,
            retry_backoff="constant",
            retry_jitter=0,
            retry_on=["failed"],
            **common,
        ),
        "rule": Rule(
            ref="shop.tell",
            label="Tell",
            action=1,
            action_ref="shop.charge",
            trigger=1,
            trigger_ref="shop.sold",
            conditions=[],
            action_params={},
            trigger_params={},
            enabled=True,
            overlap="allow",
            is_adhoc=True,
            owner_identity=None,
            **common,
        ),
    }
    if kind:
        made[kind] = replace(made[kind], **changes)
    (tmp_path / "actions").mkdir(exist_ok=True)
    (tmp_path / "actions" / "charge.sh").write_text("true\n")
    found = Definitions()
    for table in ("pack", "trigger", "action", "rule"):
        getattr(found, f"{table}s").put(1, made[table])
    return found


def test_when_all_is_well_nothing_is_found(tmp_path: Path) -> None:
    found = doctor.examine(WELL, definitions(tmp_path))

    assert [finding for finding in found if finding.level is not Level.OK or finding.found] == []


# The check, a fact that is changed, its level, and what is said.
ILLS: list[tuple[str, dict[str, Any], Level, str]] = [
    ("durability", {"settings": {**WELL.settings, "fsync": "off"}}, Level.PROBLEM, "fsync is off"),
    ("durability", {"settings": {**WELL.settings, "synchronous_commit": "local"}}, Level.PROBLEM, "is local"),
    ("migrations", {"applied": ["0001_bus.sql"]}, Level.PROBLEM, "0002_access.sql is missing"),
    ("migrations", {"migrations": ["0001_bus.sql"]}, Level.PROBLEM, "0002_access.sql is unknown to this release"),
    ("clock", {"database_now": NOW + timedelta(seconds=90)}, Level.PROBLEM, "90 s ahead"),
    ("clock", {"database_now": NOW - timedelta(seconds=5)}, Level.PROBLEM, "5 s behind"),
    ("ingress", {"refusals": ["the disk is full", "too much"]}, Level.PROBLEM, "the disk is full; too much"),
    ("dead-letters", {"dead_letters": 2}, Level.PROBLEM, "2 given up"),
    ("unroutable", {"unroutable": {"EventCreated": 1}}, Level.PROBLEM, "1 EventCreated"),
    ("rescued", {"rescued": {"attune.events.queue": 4}}, Level.PROBLEM, "4 attune.events.queue"),
    ("queues", {"waiting": {"q": (7, NOW - timedelta(minutes=6))}}, Level.PROBLEM, "7 in q, the oldest since 6 min"),
    ("retention", {"overdue": timedelta(days=3)}, Level.PROBLEM, "rows that are 3 days too old"),
    ("timers", {"timers": [replace(TIMER, next_fire_at=NOW - timedelta(minutes=3))]}, Level.PROBLEM, "is 3 min late"),
    # A zone that the system has no longer.
    (
        "timers",
        {
            "timers": [
                replace(
                    TIMER, trigger_ref="core.crontimer", trigger_params={"expression": "@daily", "timezone": "Moon/Sea"}
                )
            ]
        },
        Level.PROBLEM,
        "the schedule of shop.often cannot be read",
    ),
    ("root", {"is_root": True}, Level.HINT, "as root"),
    ("anonymous", {"anonymous": True}, Level.HINT, "may read"),
    ("administrator", {"has_administrator": False}, Level.HINT, "no administrator has a password"),
]


@pytest.mark.parametrize(("check", "changes", "level", "said"), ILLS, ids=[f"{row[0]} {row[3]}" for row in ILLS])
def test_what_is_wrong_with_a_server_is_found_by_its_check_alone(
    tmp_path: Path, check: str, changes: dict[str, Any], level: Level, said: str
) -> None:
    found = doctor.examine(replace(WELL, **changes), definitions(tmp_path))

    (finding,) = [finding for finding in found if finding.level is not Level.OK]
    assert (finding.check, finding.level) == (check, level)
    assert said in finding.found
    assert finding.remedy


# The check, what is changed of which definition, and what is said.
GONE: list[tuple[str, str, dict[str, Any], str]] = [
    ("rules", "rule", {"trigger_ref": "shop.gone"}, "shop.tell: there is no trigger shop.gone"),
    ("rules", "rule", {"action_ref": "shop.gone"}, "shop.tell: there is no action shop.gone"),
    ("actions", "action", {"entrypoint": "gone.sh"}, "gone.sh is missing"),
]


@pytest.mark.parametrize(("check", "kind", "changes", "said"), GONE, ids=[row[3] for row in GONE])
def test_what_is_wrong_with_definitions_is_found(
    tmp_path: Path, check: str, kind: str, changes: dict[str, Any], said: str
) -> None:
    found = doctor.examine(WELL, definitions(tmp_path, kind, **changes))

    (finding,) = [finding for finding in found if finding.level is not Level.OK]
    assert (finding.check, finding.level, said in finding.found) == (check, Level.PROBLEM, True)


def test_a_rule_that_is_switched_off_may_name_what_is_gone(tmp_path: Path) -> None:
    found = doctor.examine(WELL, definitions(tmp_path, "rule", enabled=False, trigger_ref="shop.gone"))

    assert all(finding.level is Level.OK for finding in found)


def test_of_many_problems_the_first_are_named_and_the_others_counted() -> None:
    found = doctor.judged("rules", [f"rule {number}" for number in range(40)], "Look.")

    assert found.found == "rule 0; rule 1; rule 2; rule 3; rule 4; and 35 more"


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    """A data directory as a server leaves it."""
    place = Installation(tmp_path / "data")
    place.execution_logs.mkdir(mode=0o700, parents=True)
    place.data.chmod(0o711)
    for folder in (place.run, place.signing_key.parent):
        folder.mkdir(mode=0o700)
    place.signing_key.touch(mode=0o600)
    place.lock.touch(mode=0o600)
    return place


def of(found: list[Finding], check: str) -> Finding:
    (finding,) = [finding for finding in found if finding.check == check]
    return finding


@pytest.mark.parametrize("is_running", [True, False])
def test_a_data_directory_that_is_well_gives_no_rise_to_anything(place: Installation, is_running: bool) -> None:
    found = premises.examine(place, is_running=is_running, min_free=0)

    assert {finding.check for finding in found} == {"data-directory", "free-space", "leftovers"}
    assert of(found, "data-directory").level is of(found, "leftovers").level is Level.OK


# What lets others in, and the mode with which it does.
OPEN: list[tuple[Callable[[Installation], Path], int]] = [
    (lambda place: place.data, 0o777),
    (lambda place: place.run, 0o710),
    (lambda place: place.signing_key.parent, 0o755),
    (lambda place: place.signing_key, 0o640),
    (lambda place: place.execution_logs, 0o770),
]


@pytest.mark.parametrize(("path", "mode"), OPEN)
def test_what_lets_others_in_is_found(place: Installation, path: Callable[[Installation], Path], mode: int) -> None:
    path(place).chmod(mode)

    finding = of(premises.examine(place, is_running=True, min_free=0), "data-directory")

    assert (finding.level, finding.found) == (Level.PROBLEM, f"{path(place)} has mode {mode:04o}, which lets others in")


def test_without_a_data_directory_nothing_is_known_of_it(tmp_path: Path) -> None:
    (finding,) = premises.examine(Installation(tmp_path / "nothing"), is_running=False, min_free=0)

    assert (finding.check, finding.level) == ("data-directory", Level.UNKNOWN)


def test_room_is_what_the_setting_says(place: Installation) -> None:
    enough, too_little = [of(premises.examine(place, is_running=True, min_free=n), "free-space") for n in (0, 10**15)]

    assert enough.level is Level.OK
    assert (too_little.level, str(place.data) in too_little.found) == (Level.PROBLEM, True)


def test_what_a_killed_server_left_is_a_hint_until_one_runs_again(place: Installation) -> None:
    place.boot.write_text("an earlier boot\n")

    stopped = of(premises.examine(place, is_running=False, min_free=0), "leftovers")
    running = of(premises.examine(place, is_running=True, min_free=0), "leftovers")

    assert (stopped.level, str(place.boot) in stopped.found) == (Level.HINT, True)
    assert running.level is Level.OK


def test_a_process_that_holds_the_lock_and_does_not_answer_is_named_and_keeps_its_lock(place: Installation) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(place.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        found = of(premises.examine(place, is_running=False, min_free=0), "leftovers")

        with place.lock.open("r+") as file, pytest.raises(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.communicate(b"\n")

    assert (found.level, f"process {process.pid} holds" in found.found) == (Level.PROBLEM, True)
    assert of(premises.examine(place, is_running=False, min_free=0), "leftovers").level is Level.OK


def test_what_may_not_be_looked_at_is_unknown(place: Installation) -> None:
    place.data.chmod(0o000)
    try:
        found = premises.examine(place, is_running=False, min_free=0)
    finally:
        place.data.chmod(0o700)

    # Root may look at everything, and finds nothing wrong.
    assert of(found, "data-directory").level is (Level.OK if os.geteuid() == 0 else Level.UNKNOWN)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_is_on_its_page(check: str) -> None:
    section = PAGE.read_text().partition(f"\n## {check}\n")[2].partition("\n## ")[0]

    assert " ".join(section.split()).startswith(CHECKS[check].rstrip(".")), check


def test_the_page_has_no_other_checks() -> None:
    assert [line[3:] for line in PAGE.read_text().splitlines() if line.startswith("## ")] == list(CHECKS)

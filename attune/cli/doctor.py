"""`attune doctor`: what is wrong, and what to do."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attune.cli.client import is_away
from attune.cli.common import Context, Format
from attune.cli.status import broken_packs
from attune.cli.talk import CommandError, Exit, say

if TYPE_CHECKING:
    from attune.base.installation import Installation
    from attune.upkeep.doctor import Finding

_MARKS = {"ok": "ok", "hint": "hint", "problem": "PROBLEM", "unknown": "unknown"}


def doctor(context: Context) -> None:
    """Look for what is wrong, and say what to do, with or without a running server. Problems end it with 1."""
    # The checks import more of the server than other commands need.
    from attune.upkeep import doctor as checks

    found = sorted(_findings(context), key=lambda finding: list(checks.CHECKS).index(finding.check))
    if context.format is Format.TABLE:
        _tell(found)
    else:
        context.one({"findings": [asdict(finding) for finding in found]})
    if any(finding.level is checks.Level.PROBLEM for finding in found):
        sys.exit(Exit.FAILED)


def _findings(context: Context) -> Iterator["Finding"]:
    from attune.settings import Storage
    from attune.upkeep import premises
    from attune.upkeep.doctor import Finding, Level, root

    place = context.client.place
    try:
        status = context.client.get("/api/v1/system/status")
        server = context.client.get("/api/v1/system/doctor")["findings"]
    except CommandError as error:
        if not is_away(error):
            raise
        answers = error.exit_code is not Exit.UNREACHABLE
        yield from _without(error.message, answers=answers)
        if place is not None:
            yield from premises.examine(place, is_running=answers, min_free=Storage().min_free)
            yield root(_owner(place) == 0)
        return
    yield Finding("server", Level.OK)
    for one in server:
        yield Finding(one["check"], Level(one["level"]), one["found"], one["remedy"])
    yield _packs(status)
    if place is not None:
        yield from premises.examine(place, is_running=True, min_free=status["storage"]["min_free"])


def _without(message: str, *, answers: bool) -> Iterator["Finding"]:
    """What is known when nobody tells how the server does: it does not answer, or has no database."""
    from attune.upkeep.doctor import Finding, Level

    if answers:
        yield Finding("server", Level.OK)
        yield Finding("database", Level.PROBLEM, message, "The log of the server says more: attune serve prints it.")
    else:
        yield Finding("server", Level.PROBLEM, message.partition(" Start one")[0], "Start it: attune serve")


def _packs(status: dict[str, Any]) -> "Finding":
    from attune.upkeep.doctor import judged

    return judged("packs", broken_packs(status), "Mend the files; what was loaded before goes on meanwhile.")


def _owner(place: "Installation") -> int:
    """Who will run the server: the owner of its data, or whoever asks."""
    return place.data.stat().st_uid if place.data.exists() else os.geteuid()


def _tell(found: Sequence["Finding"]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        line = f"{_MARKS[finding.level]:<7}  {finding.check:<{width}}  {finding.found}".rstrip()
        print(line)  # noqa: T201 - data
        if finding.remedy:
            print(f"{'':<{width + 11}}{finding.remedy}")  # noqa: T201 - data
    problems = sum(finding.level == "problem" for finding in found)
    say(f"{problems} problem{'' if problems == 1 else 's'}" if problems else "No problems.")

"""What is right, decided from outside: by what was accepted, by what actions left behind, and by the rules as
Python."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from tests.crash.load import Load, People
from tests.crash.workload import POISONED, TIMERS, WORK, Work

_TERMINAL = {"completed", "failed", "cancelled", "timeout", "abandoned"}
_SECOND = timedelta(seconds=1)

UNFINISHED = """
    SELECT 'delivery in ' || queue FROM attune.delivery
     UNION ALL
    SELECT 'execution ' || execution FROM attune.execution_open
     UNION ALL
    SELECT 'enforcement ' || id FROM attune.enforcement WHERE status = 'created'
     UNION ALL
    SELECT 'inquiry ' || id FROM attune.inquiry WHERE status = 'pending'
     UNION ALL
    SELECT 'turn of rule ' || rule FROM attune.rule_turn
     UNION ALL
    SELECT 'execution ' || execution || ' in the queue of rule ' || rule FROM attune.rule_queue
"""
"""What has not come to its end. Empty when everything has, but for what timers have just begun."""


INQUIRIES = """
    SELECT i.id, i.status, i.response #>> '{}' AS response, e.result ->> 'response' AS result,
           (SELECT count(*) FROM attune.event WHERE trigger_ref = 'core.inquiry_created'
               AND (payload ->> 'inquiry_id')::bigint = i.id) AS created,
           (SELECT count(*) FROM attune.event WHERE trigger_ref = 'core.inquiry_responded'
               AND (payload ->> 'inquiry_id')::bigint = i.id) AS responded
      FROM attune.inquiry i JOIN attune.execution e ON e.id = i.execution
"""


@dataclass
class Findings:
    """What is wrong, in sentences."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.stuck)

    def text(self) -> str:
        """The first of them."""
        kinds = {"lost": self.lost, "doubled": self.doubled, "stuck": self.stuck}
        return "\n".join(f"{kind}: {one}" for kind, found in kinds.items() for one in found[:10])


async def judge(connection: asyncpg.Connection, load: Load, people: People, file: Path) -> Findings:
    """What is wrong with the rows of a server that has nothing left to do."""
    findings = Findings()
    events = await _numbered(connection)
    _judge_events(findings, load, events)
    enforcements = await _grouped(connection, "SELECT * FROM attune.enforcement ORDER BY id", "event")
    executions = await _grouped(connection, "SELECT * FROM attune.execution ORDER BY id", "enforcement")
    letters = Counter(row["subject"] for row in await connection.fetch("SELECT subject FROM attune.dead_letter"))
    runs = _runs(file)
    for n, (event, *_) in events.items():
        trigger = load.triggers[n]
        if trigger == POISONED:
            _judge_poison(findings, n, enforcements[event], letters.pop(f"event:{event}", 0))
        else:
            _judge_number(findings, n, trigger, enforcements[event], executions, runs)
    findings.lost += [f"{count} dead letter(s) about {subject}" for subject, count in letters.items()]
    findings.doubled += [f"execution {execution} ran {count} times" for execution, count in runs.items() if count > 1]
    findings.doubled += await _done_twice(connection)
    inquiries = await connection.fetch(INQUIRIES)
    _judge_answers(findings, people, {row["id"]: row for row in inquiries})
    for ref in TIMERS:
        _judge_timer(findings, ref, *await _instants(connection, ref))
    return findings


def _judge_events(findings: Findings, load: Load, events: Mapping[int, Sequence[int]]) -> None:
    for n, event in load.accepted.items():
        if event not in events.get(n, ()):
            findings.lost.append(f"event {event} with number {n} was accepted, and is not there")
    for n, ids in events.items():
        if len(ids) > 1:
            findings.doubled.append(f"number {n} has the events {ids}")
        if n not in load.accepted and n not in load.unsure:
            findings.doubled.append(f"number {n} has an event, and nobody was told so")


def _judge_poison(findings: Findings, n: int, enforcements: Sequence[Any], letters: int) -> None:
    if enforcements:
        findings.doubled.append(f"number {n} is poison, and has an enforcement")
    if letters != 1:
        (findings.lost if letters == 0 else findings.doubled).append(f"number {n} is poison, and has {letters} letters")


def _judge_number(
    findings: Findings,
    n: int,
    trigger: str,
    enforcements: Sequence[Any],
    executions: Mapping[int, Sequence[Any]],
    runs: Mapping[int, int],
) -> None:
    by_rule: dict[str, list[Any]] = defaultdict(list)
    for row in enforcements:
        by_rule[row["rule_ref"]].append(row)
    for work in WORK:
        found = by_rule.pop(work.ref, [])
        wanted = work.trigger == trigger and work.matches(n)
        if wanted and not found:
            findings.lost.append(f"number {n} has no enforcement of {work.ref}")
        if len(found) > wanted:
            findings.doubled.append(f"number {n} has {len(found)} enforcements of {work.ref}")
        for row in found:
            _judge_enforcement(findings, work, row, executions[row["id"]], runs)
    findings.doubled += [f"number {n} has an enforcement of {ref}" for ref in by_rule]


def _judge_enforcement(
    findings: Findings, work: Work, row: Any, attempts: Sequence[Any], runs: Mapping[int, int]
) -> None:
    name = f"enforcement {row['id']} of {work.ref}"
    if row["status"] == "skipped" and work.may_skip:
        if attempts:
            findings.doubled.append(f"{name} was skipped, and has an execution")
        return
    if row["status"] != "processed":
        findings.stuck.append(f"{name} is {row['status']}: {row['reason']}")
    firsts = [one for one in attempts if one["original_execution"] is None]
    if len(firsts) != 1:
        (findings.doubled if firsts else findings.lost).append(f"{name} has {len(firsts)} executions")
        return
    if [one["retry_count"] for one in attempts] != list(range(len(attempts))):
        findings.doubled.append(f"{name} has the attempts {[one['retry_count'] for one in attempts]}")
    for one in attempts:
        if one["status"] not in _TERMINAL:
            findings.stuck.append(f"execution {one['id']} of {work.ref} is {one['status']}")
        if work.leaves and one["status"] == "completed" and runs.get(one["id"], 0) == 0:
            findings.lost.append(f"execution {one['id']} of {work.ref} completed, and did not run")
    last = attempts[-1]["status"]
    if last not in work.ends:
        findings.lost.append(f"the last of {len(attempts)} attempts of {name} is {last}")


def _judge_answers(findings: Findings, people: People, inquiries: Mapping[int, Any]) -> None:
    """Every answer that was taken must have reached who asked, and rules must have heard of all once."""
    for inquiry, response in people.answered.items():
        row = inquiries.get(inquiry)
        if row is None or not row["response"] == row["result"] == response:
            findings.lost.append(f"the answer {response!r} to inquiry {inquiry} has become {row and dict(row)}")
    for row in inquiries.values():
        heard, wanted = (row["created"], row["responded"]), (1, int(row["status"] == "responded"))
        if heard != wanted:
            problem = f"rules heard {heard} times of inquiry {row['id']} and its answer, not {wanted}"
            (findings.lost if heard < wanted else findings.doubled).append(problem)


def _judge_timer(
    findings: Findings, ref: str, instants: Sequence[datetime], skips: Sequence[tuple[datetime, datetime]]
) -> None:
    """Each second from the first to the last instant must have one event, or lie in one recorded skip."""
    findings.doubled += [f"{ref} fired {count} times for {at}" for at, count in Counter(instants).items() if count > 1]
    if not instants:
        findings.lost.append(f"{ref} never fired")
        return
    fired = set(instants)
    at, last = min(fired), max(fired)
    while at <= last:
        skipped = sum(first <= at <= until for first, until in skips)
        if at not in fired and not skipped:
            findings.lost.append(f"{ref} has neither an event nor a skip for {at}")
        if (at in fired) + skipped > 1:
            findings.doubled.append(f"{ref} has an event and a skip, or two skips, for {at}")
        at += _SECOND


async def _numbered(connection: asyncpg.Connection) -> dict[int, list[int]]:
    """The ids of events by their number."""
    rows = await connection.fetch(
        "SELECT (payload ->> 'n')::int AS n, id FROM attune.event WHERE payload ? 'n' ORDER BY id"
    )
    events: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        events[row["n"]].append(row["id"])
    return events


async def _grouped(connection: asyncpg.Connection, query: str, column: str) -> Mapping[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for row in await connection.fetch(query):
        if row[column] is not None:
            groups[row[column]].append(row)
    return groups


async def _done_twice(connection: asyncpg.Connection) -> list[str]:
    """Deliveries that were handled more than once: whatever they did was done again, even if nobody sees it."""
    rows = await connection.fetch(
        """
        SELECT queue, message_id, count(*) AS count
          FROM attune.trace
         WHERE outcome = 'done'
         GROUP BY queue, message_id
        HAVING count(*) > 1
        """
    )
    return [f"delivery {row['message_id']} of {row['queue']} was done {row['count']} times" for row in rows]


async def _instants(connection: asyncpg.Connection, ref: str) -> tuple[list[datetime], list[tuple[datetime, datetime]]]:
    events = await connection.fetch(
        "SELECT scheduled_at FROM attune.event WHERE rule_ref = $1 AND scheduled_at IS NOT NULL", ref
    )
    skips = await connection.fetch("SELECT first, last FROM attune.timer_skip WHERE rule_ref = $1", ref)
    return [row["scheduled_at"] for row in events], [(row["first"], row["last"]) for row in skips]


def _runs(file: Path) -> Counter[int]:
    """How often each execution ran, by what it left behind. One that was killed early may have had no number yet."""
    lines = file.read_text().splitlines() if file.exists() else ()
    return Counter(int(line.split()[-1]) for line in lines)


def describe(unfinished: Iterable[Any]) -> list[str]:
    """What is unfinished, in words."""
    return [str(row[0]) for row in unfinished]

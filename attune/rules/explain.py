"""Why a rule fired for an event, or why not: the verdicts computed again, from the definitions that the matcher saw."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from attune.base.json import JsonObject
from attune.bus import queries as bus
from attune.catalog import queries as catalog
from attune.catalog.model import Rule
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.events.model import Event
from attune.rules import queries
from attune.rules.evaluation import Verdict, concerned, judge

State: TypeAlias = Literal["matched", "waiting", "dead", "discarded"]


@dataclass(frozen=True, slots=True)
class Consequence:
    """What became of a match. `execution` is the newest of its `attempts`."""

    enforcement: int
    enforcement_status: str
    reason: str | None
    execution: int | None
    execution_status: str | None
    error: str | None
    attempts: int | None


@dataclass(frozen=True, slots=True)
class Explained:
    verdict: Verdict
    consequence: Consequence | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """An event and what every rule of its trigger made of it. `state` waiting: the matcher did not get to it yet, and
    the verdicts are what it would come to now; dead: it gave up, see dead letter `dead_letter`; discarded: that letter
    was, no rule was asked, and the verdicts are what it would have come to."""

    event: Event
    state: State
    matched_at: datetime | None
    dead_letter: int | None
    rules: tuple[Explained, ...]
    note: str | None

    @property
    def executions(self) -> list[int]:
        """The executions that followed."""
        consequences = [one.consequence for one in self.rules if one.consequence is not None]
        return [one.execution for one in consequences if one.execution is not None]


async def explain(connection: Connection, event_id: int, now: datetime) -> Explanation | None:
    """The explanation of an event; None when there is no such event."""
    event = await events.event(connection, event_id)
    if event is None:
        return None
    matched = await queries.seen_by_matcher(connection, event_id)
    if matched is None:
        version, at = await catalog.current_version(connection), None
    else:
        version, at = matched["definition_version"], matched["created"]
    rules = await catalog.rules_at(connection, version, event.trigger_ref)
    configs = await _configs(connection, version)
    consequences = {row["rule"]: _consequence(row) for row in await queries.consequences(connection, event_id)}
    dead, _ = (await bus.dead_letters_about(connection, [f"event:{event_id}"])).get(f"event:{event_id}", (None, None))
    return Explanation(
        event,
        _state(matched, dead),
        at,
        dead,
        tuple(
            Explained(judge(rule, event, configs.get(rule.pack_ref, {}), at or now), consequences.get(rule.id))
            for rule in rules
            if event.rule is None or rule.id == event.rule
        ),
        (matched and matched["note"]) or _note(event, rules),
    )


def _state(matched: Row | None, dead_letter: int | None) -> State:
    if matched is None:
        return "waiting" if dead_letter is None else "dead"
    return "matched" if matched["note"] is None else "discarded"


async def _configs(connection: Connection, version: int) -> dict[str, JsonObject]:
    return {pack.ref: pack.config for pack in await catalog.packs_at(connection, version)}


def _consequence(row: Row) -> Consequence:
    return Consequence(
        row["enforcement"],
        row["enforcement_status"],
        row["reason"],
        row["execution"],
        row["execution_status"],
        row["error"],
        row["attempts"],
    )


def _note(event: Event, rules: list[Rule]) -> str | None:
    if event.rule is None:
        return None if rules else f"No rule is on the trigger {event.trigger_ref}."
    rule = next((rule for rule in rules if rule.id == event.rule), None)
    name = event.rule_ref or (rule.ref if rule is not None else f"with the id {event.rule}")
    if not concerned(event, rule):
        return f"The event is for the rule {name} alone, which was deleted or given another trigger."
    return f"The event is for the rule {name} alone."

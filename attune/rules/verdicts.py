"""What rules made of many events at once, briefly."""

from collections.abc import Sequence
from dataclasses import dataclass

from attune.base.json import Json
from attune.catalog import queries as catalog
from attune.catalog.model import Rule
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.events.model import Event
from attune.rules import queries
from attune.rules.evaluation import Decision, Verdict, concerned, decide, deciding, error_of, written

# An event may have a megabyte, and what it becomes in Python is larger.
_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Brief:
    """What a rule made of an event: when it did not match, at which `clause`, and what was there: `actual`, unless that
    was missing (`actual_missing`; None when the clause looks at no single value). `error` says why it could not be
    evaluated, or why nothing is run."""

    rule_ref: str
    action_ref: str
    decision: Decision
    clause: str | None = None
    actual: Json = None
    actual_missing: bool | None = None
    error: str | None = None
    enforcement: int | None = None


async def verdicts(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[Brief, ...]]:
    """What the rules made of those events that the matcher took."""
    matches = {row["event"]: row for row in await queries.matches(connection, ids)}
    briefs: dict[int, tuple[Brief, ...]] = dict.fromkeys(matches, ())
    rules: dict[tuple[int, str], list[Rule]] = {}
    # Of what was discarded no rule was asked.
    asked = sorted(event for event, row in matches.items() if row["note"] is None)
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        read, _ = await events.events_with_version(connection, some)
        effects = {(row["event"], row["rule"]): row for row in await queries.effects(connection, some)}
        for event in read.values():
            key = matches[event.id]["definition_version"], event.trigger_ref
            if key not in rules:
                rules[key] = await catalog.rules_at(connection, *key)
            briefs[event.id] = tuple(
                _brief(decide(rule, event), effects.get((event.id, rule.id)))
                for rule in rules[key]
                if _is_for(event, rule)
            )
    return briefs


def _is_for(event: Event, rule: Rule) -> bool:
    return rule.enabled and (event.rule is None or (event.rule == rule.id and concerned(event, rule)))


def _brief(verdict: Verdict, effect: Row | None) -> Brief:
    rule, clause = verdict.rule, None if verdict.clause is None else deciding(verdict.clause)
    if verdict.decision is Decision.MATCHED:
        return Brief(
            rule.ref,
            rule.action_ref,
            verdict.decision,
            error=None if effect is None else effect["reason"],
            enforcement=None if effect is None else effect["id"],
        )
    if clause is None or verdict.decision is Decision.ERROR:
        error = error_of(verdict) if verdict.decision is Decision.ERROR else None
        return Brief(rule.ref, rule.action_ref, verdict.decision, error=error)
    missing = clause.actual_missing if clause.has_actual else None
    return Brief(rule.ref, rule.action_ref, verdict.decision, written(clause), clause.actual, missing)

"""What a rule makes of an event: pure functions from both to a verdict."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from attune.base.errors import Problem
from attune.base.expressions import Expression, ExpressionError, compile_template, has_template, resolve
from attune.base.json import Json, JsonObject, dumps, pointer
from attune.base.verdicts import Clause
from attune.catalog.model import Rule
from attune.catalog.queries import RuleSpec
from attune.events.model import Event
from attune.rules.conditions import compile_condition, condition_problems, unknown_names

PARAMETER_NAMES = ("event", "pack", "system")


class ParametersError(ExpressionError):
    """The conditions of a rule hold, and its templates cannot be filled in."""


class Decision(StrEnum):
    MATCHED = "matched"
    NOT_MATCHED = "not_matched"
    DISABLED = "disabled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule made of an event. `clause` is the root of its conditions; `parameters` what it gave its action."""

    rule: Rule
    decision: Decision
    clause: Clause | None = None
    parameters: JsonObject | None = None
    error: str | None = None


def concerned(event: Event, rule: Rule | None) -> bool:
    """Whether an event that names a rule is for that rule, as it is now: it was not deleted, and not given another
    trigger. An event that names a rule is never for any other."""
    return rule is not None and rule.trigger_ref == event.trigger_ref


def names_of(event: Event) -> dict[str, Json]:
    """What conditions see of an event."""
    return {
        "event": {
            "id": event.id,
            "trigger": event.trigger_ref,
            "trigger_ref": event.trigger_ref,
            "payload": event.payload,
            "created": _rfc3339(event.created),
        }
    }


class Compiled:
    """A rule, ready to be matched with many events."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.condition = compile_condition(rule.conditions)
        # Parameters without a template are always the same.
        self._constant = None if has_template(rule.action_params) else dumps(rule.action_params)

    def match(self, names: Mapping[str, Json], config: JsonObject, now: datetime) -> str | None:
        """The parameters for the action as JSON text when the enabled rule matches, None when it does not.

        Raises ParametersError when it matches and has no parameters to give, ExpressionError when it cannot be said
        whether it matches.
        """
        if not self.condition.holds(names):
            return None
        return self._constant or dumps(parameters(self.rule, names, config, now))


def parameters(rule: Rule, names: Mapping[str, Json], config: JsonObject, now: datetime) -> JsonObject:
    """The parameters that a rule gives its action, its templates filled in. Raises ParametersError."""
    known: dict[str, Json] = {
        **names,
        "pack": {"config": config},
        "system": {"timestamp": _rfc3339(now), "rule": {"id": rule.id, "ref": rule.ref}},
    }
    try:
        resolved = resolve(rule.action_params, known)
    except ExpressionError as error:
        raise ParametersError(f"the parameters cannot be filled in: {error.message}") from error
    assert isinstance(resolved, dict)
    return resolved


def judge(rule: Rule, event: Event, config: JsonObject, now: datetime) -> Verdict:
    """What `Compiled.match` came to, clause by clause."""
    verdict = decide(rule, event)
    if verdict.decision is not Decision.MATCHED:
        return verdict
    try:
        return replace(verdict, parameters=parameters(rule, names_of(event), config, now))
    except ParametersError as error:
        return replace(verdict, decision=Decision.ERROR, error=error.message)


def decide(rule: Rule, event: Event) -> Verdict:
    """What the conditions of a rule came to, clause by clause; without the parameters."""
    if not rule.enabled:
        return Verdict(rule, Decision.DISABLED)
    try:
        clause = compile_condition(rule.conditions).explain(names_of(event))
    except ExpressionError as error:
        return Verdict(rule, Decision.ERROR, error=error.message)
    if clause.outcome == "error":
        return Verdict(rule, Decision.ERROR, clause, error="the conditions cannot be decided")
    if clause.outcome != "true":
        return Verdict(rule, Decision.NOT_MATCHED, clause)
    return Verdict(rule, Decision.MATCHED, clause)


def deciding(clause: Clause) -> Clause:
    """The part of a condition that decided it: the first clause that failed, or the whole when it took several."""
    if clause.kind == "all" or clause.outcome == "error":
        guilty = next((part for part in clause.clauses if part.outcome == clause.outcome), None)
        return clause if guilty is None else deciding(guilty)
    return clause


def error_of(verdict: Verdict) -> str:
    """Why a rule could not be evaluated: what its clause says, or else the verdict."""
    clause = None if verdict.clause is None else deciding(verdict.clause)
    return (clause.error if clause is not None else None) or verdict.error or "it could not be evaluated"


def written(clause: Clause) -> str:
    """A clause as one line; groups of field clauses have no text of their own."""
    if not _is_group(clause):
        return clause.text
    parts = (f"({written(part)})" if _is_group(part) else part.text for part in clause.clauses)
    return (" and " if clause.kind == "all" else " or ").join(parts)


def _is_group(clause: Clause) -> bool:
    return bool(clause.clauses) and clause.text in {"all", "any"}


def problems(rule: RuleSpec) -> Iterator[Problem]:
    """What is wrong with the conditions and the templates of a rule, as JSON Pointers into it."""
    yield from condition_problems(rule.conditions, "/conditions")
    for path, expression in expressions(rule.action_params):
        for wrong in unknown_names(expression, PARAMETER_NAMES):
            yield Problem("/action_params" + pointer(path), wrong)


def expressions(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Expression]]:
    """The expressions in the templates of `value`, and where they stand."""
    if isinstance(value, str):
        yield from ((path, part) for part in compile_template(value).parts if isinstance(part, Expression))
    elif isinstance(value, dict | list):
        children: Iterable[tuple[str | int, Json]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            yield from expressions(child, (*path, key))


def _rfc3339(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")

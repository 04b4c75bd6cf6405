"""The rule matcher: which rules an event matches, as enforcements in the transaction that takes the event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from attune.base.errors import Problem
from attune.base.expressions import ExpressionError
from attune.base.json import Json, JsonObject
from attune.base.states import EnforcementStatus
from attune.bus.broadcasts import Heard
from attune.bus.bus import Bus
from attune.bus.messages import Cause, Delivery, EnforcementCreated, Entity, EventCreated, Letter, NotificationType
from attune.bus.outcomes import DONE, BatchTooLarge, Outcome, Reject
from attune.bus.transaction import Transaction
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions, Derived
from attune.catalog.model import Rule
from attune.catalog.queries import RuleSpec
from attune.database.pool import Connection
from attune.events import queries as events
from attune.events.model import Event
from attune.executions import endings, enforcement_queries, notices
from attune.executions.model import NewEnforcement
from attune.rules import evaluation, loops, queries
from attune.rules.evaluation import Compiled, ParametersError, names_of
from attune.rules.loops import Firing
from attune.rules.queries import EventMatch
from attune.telemetry.stages import Stages

log = structlog.get_logger()

SOURCE = "rule matcher"

_MOST_EVALUATIONS = 5_000
"""Rules, over all events of a batch: they are evaluated at a stretch, because the definitions must not change
meanwhile, and what they cause is one transaction."""

_MOST_ANCESTORS = 1_000
"""Executions before an event that are looked at."""


class ConditionRules:
    """What the matcher has to say about rules."""

    def problems(self, rule: RuleSpec) -> Iterable[Problem]:
        """What is wrong with the conditions and the templates of a rule."""
        return evaluation.problems(rule)

    async def changed(self, _: Transaction, before: Rule | None, after: Rule | None) -> Sequence[str]:  # noqa: ARG002
        """Nothing follows from a change: the matcher reads the version of the definitions with each batch."""
        return ()


@dataclass(frozen=True, slots=True)
class _Found:
    """An enforcement to be, and when its event came. `failure`: why nothing can follow from it; `is_loop`: because its
    rule fires itself."""

    enforcement: NewEnforcement
    event_created: datetime
    failure: str | None
    is_loop: bool


class Matcher:
    """Handles EventCreated."""

    def __init__(self, definitions: Definitions, stages: Stages, max_loops: int) -> None:
        """`max_loops`: how often a rule may, in a minute, cause an event that fires it."""
        self._definitions = definitions
        self._stages = stages
        self._max_loops = max_loops
        self._compiled: Derived[Rule, Compiled] = Derived(Compiled)

    async def handle(self, transaction: Transaction, batch: Sequence[Delivery[EventCreated]]) -> Sequence[Outcome]:
        connection = transaction.connection
        read, version = await events.events_with_version(connection, [one.message.event_id for one in batch])
        ancestors = await self._ancestors(connection, read.values())
        await self._definitions.follow(connection, version)
        # Other consumers follow as well: this is what the rules below are, whatever comes while we write.
        seen = self._definitions.version
        outcomes: list[Outcome] = []
        matches: list[EventMatch] = []
        found: list[_Found] = []
        candidates = {event.id: self._candidates(event) for event in read.values()}
        if len(batch) > 1 and sum(map(len, candidates.values())) > _MOST_EVALUATIONS:
            raise BatchTooLarge
        for delivery in batch:
            event = read.get(delivery.message.event_id)
            if event is None:
                outcomes.append(Reject(f"There is no event {delivery.message.event_id}."))
                continue
            outcomes.append(DONE)
            rules = candidates[event.id]
            chain = ancestors.get(event.id, ())
            enforcements, failed = self._evaluate(event, rules, chain, delivery.envelope.effect(), transaction.now)
            found.extend(enforcements)
            matches.append(EventMatch(event.id, len(rules), len(enforcements), failed))
        if found:
            await self._enforce(transaction, found)
        if matches:
            await queries.insert_matches(connection, matches, seen, transaction.now)
            if transaction.shows(Entity.EVENT):
                _show(transaction, matches, read)
        return outcomes

    async def _ancestors(self, connection: Connection, read: Iterable[Event]) -> Mapping[int, Sequence[Firing]]:
        """What has led to the events that may belong to a loop: few, if any."""
        deep = [event for event in read if loops.may_loop(event, self._max_loops)]
        if not deep:
            return {}
        since = min(event.created for event in deep) - loops.WINDOW
        return await queries.ancestors(connection, [event.id for event in deep], since, _MOST_ANCESTORS)

    def _candidates(self, event: Event) -> list[Rule]:
        """The enabled rules that the event is for: the one that it names, or all of its trigger."""
        if event.rule is not None:
            rule = self._definitions.rules.by_id.get(event.rule)
            return [rule] if rule is not None and rule.enabled and evaluation.concerned(event, rule) else []
        return [rule for rule in self._definitions.rules_of(event.trigger_ref).values() if rule.enabled]

    def _evaluate(
        self, event: Event, rules: Sequence[Rule], ancestors: Sequence[Firing], cause: Cause, now: datetime
    ) -> tuple[list[_Found], int]:
        """The enforcements that rules ask for, and how many rules could not be evaluated."""
        names = names_of(event)
        found = []
        failed = 0
        for rule in rules:
            try:
                matched = self._match(rule, names, now)
            except ExpressionError as error:
                failed += 1
                log.warning("a rule could not be evaluated", _event=event.id, rule=rule.ref, error=error.message)
                continue
            if matched is None:
                if self._stages.enabled:
                    self._stages.log("rule did not match", event=event.id, rule=rule.ref)
                continue
            parameters, failure = matched
            loop = loops.find(rule.id, ancestors, event.created, self._max_loops) if ancestors else None
            if loop is not None:
                failure = loops.reason(rule.ref, loop)
            enforcement = NewEnforcement(
                rule=rule.id,
                rule_ref=rule.ref,
                trigger_ref=event.trigger_ref,
                event=event.id,
                config=parameters,
                cause=cause,
            )
            found.append(_Found(enforcement, event.created, failure, loop is not None))
        return found, failed

    def _match(self, rule: Rule, names: Mapping[str, Json], now: datetime) -> tuple[str, str | None] | None:
        """The parameters for the action as JSON text, or why there are none; None when the rule does not match."""
        try:
            parameters = self._compiled.of(rule).match(names, self._config(rule), now)
        except ParametersError as error:
            return "{}", error.message
        return None if parameters is None else (parameters, None)

    def _config(self, rule: Rule) -> JsonObject:
        pack = self._definitions.packs.by_ref.get(rule.pack_ref)
        return pack.config if pack is not None else {}

    async def _enforce(self, transaction: Transaction, found: Sequence[_Found]) -> None:
        ids = await enforcement_queries.insert_enforcements(
            transaction.connection, [one.enforcement for one in found], transaction.now
        )
        failures: list[tuple[int, EnforcementStatus, str | None]] = []
        looping: list[tuple[str, int, UUID]] = []
        for one in found:
            new = one.enforcement
            enforcement_id = ids.get((new.event, new.rule))
            if enforcement_id is None:
                # It exists: this event was matched before, and its messages went out then.
                continue
            notices.enforcement_created(transaction, enforcement_id, new)
            if one.failure is not None:
                failures.append((enforcement_id, EnforcementStatus.FAILED, one.failure))
                if one.is_loop:
                    looping.append((new.rule_ref, new.event, new.cause.correlation_id))
                log.warning("an enforcement failed", _event=new.event, rule=new.rule_ref, error=one.failure)
                continue
            self._publish(transaction, one, enforcement_id)
        if failures:
            await endings.resolve(transaction, failures)
        if looping:
            await queries.note_loops(transaction.connection, looping, transaction.now)

    def _publish(self, transaction: Transaction, found: _Found, enforcement_id: int) -> None:
        new = found.enforcement
        transaction.publish(
            EnforcementCreated(
                enforcement_id=enforcement_id,
                event_id=new.event,
                rule_id=new.rule,
                rule_ref=new.rule_ref,
                trigger_ref=new.trigger_ref,
                event_created=found.event_created,
            ),
            new.cause,
            SOURCE,
        )
        if self._stages.enabled:
            transaction.after_commit(
                partial(
                    self._stages.log,
                    "rule matched",
                    event=new.event,
                    rule=new.rule_ref,
                    enforcement=enforcement_id,
                )
            )


def _show(transaction: Transaction, matches: Sequence[EventMatch], read: Mapping[int, Event]) -> None:
    for match in matches:
        event = read[match.event]
        transaction.notify(
            NotificationType.EVENT_EXAMINED,
            event.id,
            {
                "trigger": event.trigger,
                "trigger_ref": event.trigger_ref,
                "rule": event.rule,
                "rule_ref": event.rule_ref,
                "looked_at": match.rules,
                "matched": match.matched,
                "failed": match.failed,
                "created": event.created,
                "examined_at": transaction.now,
            },
        )


async def match_no_rule(transaction: Transaction, delivery: Delivery[EventCreated], letter: Letter) -> str:
    """Let an event that the matcher gave up have matched no rule, if its dead letter is discarded."""
    event = delivery.message.event_id
    note = f"Its dead letter {letter.id} was discarded, so no rule was asked: {letter.error}"
    if await queries.insert_no_match(transaction.connection, event, note, transaction.now):
        return f"event {event} has matched no rule"
    return f"event {event} was matched before, or is not there"


class RuleCache:
    """Listens to RuleChanged, so that the first event after a change finds the definitions read already."""

    def __init__(self, bus: Bus, definitions: Definitions) -> None:
        self._bus = bus
        self._definitions = definitions

    async def hear(self, _: Heard) -> None:
        async with self._bus.database.acquire() as connection:
            await self._definitions.follow(connection, await catalog.current_version(connection))

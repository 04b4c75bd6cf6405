"""The enforcement processor: an enforcement becomes one execution, or is closed with the reason why not."""

from collections.abc import Sequence
from functools import partial

from attune.base.json import dumps, loads
from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus.messages import Delivery, EnforcementCreated, ExecutionRequested
from attune.bus.outcomes import DONE, Outcome, Reject
from attune.bus.transaction import Transaction
from attune.catalog.definitions import Definitions
from attune.catalog.model import Action
from attune.executions import endings, enforcement_queries, notices, queries
from attune.executions.model import Enforcement, NewExecution
from attune.executions.turns.turns import Admission
from attune.telemetry.stages import Stages

SOURCE = "enforcement processor"


class EnforcementProcessor:
    """Handles EnforcementCreated."""

    def __init__(self, definitions: Definitions, stages: Stages) -> None:
        self._definitions = definitions
        self._stages = stages

    async def handle(
        self, transaction: Transaction, batch: Sequence[Delivery[EnforcementCreated]]
    ) -> Sequence[Outcome]:
        found, version = await enforcement_queries.enforcements_with_version(
            transaction.connection, [delivery.message.enforcement_id for delivery in batch]
        )
        await self._definitions.follow(transaction.connection, version)
        rules = self._definitions.rules.by_id
        admission = await Admission.to(transaction, (rules[one.rule] for one in found.values() if one.rule in rules))
        wanted: dict[int, tuple[Delivery[EnforcementCreated], NewExecution]] = {}
        decisions: list[tuple[int, EnforcementStatus, str | None]] = []
        outcomes: list[Outcome] = []
        for delivery in batch:
            enforcement = found.get(delivery.message.enforcement_id)
            if enforcement is None:
                outcomes.append(Reject(f"There is no enforcement {delivery.message.enforcement_id}."))
                continue
            outcomes.append(DONE)
            if enforcement.status is not EnforcementStatus.CREATED:
                continue
            decided = self._decide(enforcement, delivery, admission)
            if isinstance(decided, NewExecution):
                decisions.append((enforcement.id, EnforcementStatus.PROCESSED, None))
                wanted[enforcement.id] = (delivery, decided)
            else:
                decisions.append((enforcement.id, *decided))
        if wanted:
            await self._request(transaction, wanted, admission)
        if decisions:
            await endings.resolve(transaction, decisions)
        return outcomes

    def _decide(
        self, enforcement: Enforcement, delivery: Delivery[EnforcementCreated], admission: Admission
    ) -> NewExecution | tuple[EnforcementStatus, str]:
        """The execution of an enforcement, or what becomes of it instead, and why."""
        rule = self._definitions.rules.by_id.get(enforcement.rule)
        if rule is None:
            return EnforcementStatus.DISABLED, f"the rule {enforcement.rule_ref} was deleted"
        if not rule.enabled:
            return EnforcementStatus.DISABLED, f"the rule {rule.ref} was disabled"
        action = self._definitions.actions.by_ref.get(rule.action_ref)
        if action is None:
            return EnforcementStatus.DISABLED, f"there is no action {rule.action_ref}"
        if rule.trigger_ref not in self._definitions.triggers.by_ref:
            return EnforcementStatus.DISABLED, f"there is no trigger {rule.trigger_ref}"
        refusal = admission.refusal(rule, enforcement.id)
        if refusal is not None:
            return EnforcementStatus.SKIPPED, refusal
        return NewExecution(
            action=action.id,
            action_ref=action.ref,
            config=self._completed(enforcement.config, action),
            enforcement=enforcement.id,
            executor=rule.owner_identity,
            cause=delivery.envelope.effect(),
        )

    def _completed(self, config: str, action: Action) -> str:
        """The parameters as JSON text, with the action's defaults."""
        checker = self._definitions.parameters.of(action)
        return dumps(checker.complete(loads(config))) if checker.defaults else config

    async def _request(
        self,
        transaction: Transaction,
        wanted: dict[int, tuple[Delivery[EnforcementCreated], NewExecution]],
        admission: Admission,
    ) -> None:
        new = [execution for _, execution in wanted.values()]
        ids = await queries.insert_executions(transaction.connection, new, transaction.now)
        held = await admission.settle(transaction, ids)
        for enforcement_id, execution_id in ids.items():
            delivery, execution = wanted[enforcement_id]
            notices.execution_created(
                transaction,
                execution_id,
                action=execution.action,
                action_ref=execution.action_ref,
                enforcement=enforcement_id,
                rule_ref=delivery.message.rule_ref,
                trigger_ref=delivery.message.trigger_ref,
                status=ExecutionStatus.SCHEDULING if execution_id in held else ExecutionStatus.REQUESTED,
            )
            if execution_id in held:
                # Whoever has the turn passes it on when it ends.
                continue
            transaction.publish(
                ExecutionRequested(
                    execution_id=execution_id,
                    action_ref=execution.action_ref,
                    enforcement_id=enforcement_id,
                    event_id=delivery.message.event_id,
                    rule_ref=delivery.message.rule_ref,
                    trigger_ref=delivery.message.trigger_ref,
                    event_created=delivery.message.event_created,
                ),
                execution.cause,
                SOURCE,
            )
            if self._stages.enabled:
                transaction.after_commit(
                    partial(
                        self._stages.log,
                        "execution requested",
                        event=delivery.message.event_id,
                        enforcement=enforcement_id,
                        execution=execution_id,
                        action=execution.action_ref,
                    )
                )

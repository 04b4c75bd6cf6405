"""Enforcements and executions as values."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from attune.base.json import Json, JsonObject
from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus.messages import Cause
from attune.executions.states import Step


class NewEnforcement(NamedTuple):
    """What the matcher asks for when a rule matches an event. `config`, the parameters for the action, is JSON text."""

    rule: int
    rule_ref: str
    trigger_ref: str
    event: int
    config: str
    cause: Cause


class Origin(NamedTuple):
    """Where something comes from: an execution that asks for it, or nobody of whom we know; and its place in a
    chain."""

    execution: int | None
    cause: Cause


class NewExecution(NamedTuple):
    """What somebody asks to be run. `config` are the action's parameters as JSON text; `parent` is an execution that
    asks for it."""

    action: int | None
    action_ref: str
    config: str
    enforcement: int | None
    executor: int | None
    cause: Cause
    parent: int | None = None


class Enforcement(NamedTuple):
    """What the enforcement processor reads. `config` is JSON text: it is passed on as it is."""

    id: int
    rule: int
    rule_ref: str
    event: int
    status: EnforcementStatus
    config: str


class Requested(NamedTuple):
    """What the scheduler reads of an execution. `config` is JSON text."""

    id: int
    action_ref: str
    config: str
    status: ExecutionStatus


class Provenance(NamedTuple):
    """The rule and the event that an execution comes from; nothing of it when no rule asked for it."""

    event: int | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None


class Finished(NamedTuple):
    """How an execution ended. `result` is JSON text."""

    execution: int
    action_ref: str
    event: int | None
    step: Step
    result: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Execution:
    id: int
    action: int | None
    action_ref: str
    config: JsonObject
    parent: int | None
    enforcement: int | None
    event: int | None
    executor: int | None
    worker: int | None
    status: ExecutionStatus
    result: Json
    original_execution: int | None
    retry_count: int
    retry_reason: str | None
    not_before: datetime | None
    boot: UUID | None
    deadline: datetime | None
    lease_until: datetime | None
    correlation_id: UUID
    causation_id: UUID | None
    depth: int
    created: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated: datetime

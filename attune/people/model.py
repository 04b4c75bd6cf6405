"""Inquiries as values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from attune.base.json import Json, JsonObject
from attune.bus.messages import Cause

ASK = "core.ask"
"""The action whose executions wait for an answer."""


class InquiryStatus(StrEnum):
    PENDING = "pending"
    RESPONDED = "responded"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody is asked. `response_schema` says what an answer must be like, None that anything will do;
    `assigned_to` is the id of the only identity that may answer; `context` goes to the rules that hear of the answer.
    After `timeout_at` nobody can answer any more."""

    prompt: str
    response_schema: JsonObject | None = None
    assigned_to: int | None = None
    context: Json = None
    timeout_at: datetime | None = None


class NewInquiry(NamedTuple):
    """A question of an execution, which does nothing but wait for the answer if it `waits`."""

    execution: int
    question: Question
    waits: bool
    cause: Cause


@dataclass(frozen=True, slots=True)
class Inquiry:
    """`responded_by` is the login of who answered, or `local` for who did on the machine of the server."""

    id: int
    execution: int
    question: Question
    waits: bool
    status: InquiryStatus
    response: Json
    responded_by: str | None
    responded_at: datetime | None
    cause: Cause
    created: datetime
    updated: datetime

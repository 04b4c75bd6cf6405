"""What follows from a question and from its answer: rules hear of both, and who waited goes on."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attune.base.json import JsonObject, dumps
from attune.bus.messages import Cause, Delivery, InquiryCreated, InquiryResponded, Letter
from attune.bus.outcomes import DONE, Outcome
from attune.bus.transaction import Transaction
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.database.pool import Connection
from attune.events.ingest import Ingest
from attune.events.model import INQUIRY_CREATED, INQUIRY_RESPONDED, NewEvent
from attune.executions import endings
from attune.executions import queries as executions
from attune.executions.model import Finished, Provenance
from attune.executions.states import Step
from attune.people import queries
from attune.people.model import ASK, Inquiry

SOURCE = "inquiries"


class Answers:
    """Tells rules what people are asked and what they answer, and ends the executions that waited."""

    def __init__(self, definitions: Definitions, ingest: Ingest) -> None:
        self._definitions = definitions
        self._ingest = ingest

    async def announce(self, transaction: Transaction, batch: Sequence[Delivery[InquiryCreated]]) -> Sequence[Outcome]:
        """Handle InquiryCreated."""
        asked, origins = await _read(transaction.connection, batch)
        news = [
            (inquiry, _about(inquiry, origins) | _question(inquiry), delivery.envelope.effect())
            for inquiry, delivery in asked
        ]
        await self._tell(transaction, INQUIRY_CREATED, news)
        return [DONE] * len(batch)

    async def pass_on(self, transaction: Transaction, batch: Sequence[Delivery[InquiryResponded]]) -> Sequence[Outcome]:
        """Handle InquiryResponded. Who was cancelled meanwhile has ended: nobody hears of the answer."""
        answered, origins = await _read(transaction.connection, batch)
        ends = [
            _end(inquiry, origins, Step.COMPLETE, _result(inquiry), delivery.envelope.effect())
            for inquiry, delivery in answered
            if inquiry.waits
        ]
        ended = await endings.end(transaction, ends, SOURCE)
        late = {end.execution for end, is_ended in zip(ends, ended, strict=True) if not is_ended}
        news = [
            (inquiry, _about(inquiry, origins) | _answer(inquiry), delivery.envelope.effect())
            for inquiry, delivery in answered
            if not (inquiry.waits and inquiry.execution in late)
        ]
        await self._tell(transaction, INQUIRY_RESPONDED, news)
        return [DONE] * len(batch)

    async def _tell(
        self, transaction: Transaction, trigger_ref: str, news: Iterable[tuple[Inquiry, JsonObject, Cause]]
    ) -> None:
        await self._definitions.follow(transaction.connection, await catalog.current_version(transaction.connection))
        trigger = self._definitions.triggers.by_ref[trigger_ref]
        events = [
            NewEvent(trigger.id, trigger.ref, dumps(payload), SOURCE, cause, execution=inquiry.execution)
            for inquiry, payload, cause in news
        ]
        if events:
            await self._ingest.record(transaction, events)


async def fail_asker(transaction: Transaction, delivery: Delivery[InquiryResponded], letter: Letter) -> str:
    """Fail the execution that waits for an answer which cannot be passed on."""
    answered, origins = await _read(transaction.connection, [delivery])
    error = f"Its dead letter {letter.id} was discarded: {letter.error}"
    ends = [
        _end(inquiry, origins, Step.FAIL, {"succeeded": False, "error": error}, delivery.envelope.effect())
        for inquiry, _ in answered
        if inquiry.waits
    ]
    await endings.end(transaction, ends, SOURCE)
    return f"nobody hears of the answer to inquiry {delivery.message.inquiry_id}"


async def leave_inquiry(_: Transaction, delivery: Delivery[InquiryCreated], __: Letter) -> str:
    """Change nothing: the question stays open, only no rule hears of it."""
    return f"no rule hears of inquiry {delivery.message.inquiry_id}"


async def _read(
    connection: Connection, batch: Sequence[Delivery[Any]]
) -> tuple[list[tuple[Inquiry, Delivery[Any]]], Mapping[int, Provenance]]:
    """The inquiries of a batch that are there, and where their executions come from."""
    found = await queries.inquiries(connection, [one.message.inquiry_id for one in batch])
    there = [(found[one.message.inquiry_id], one) for one in batch if one.message.inquiry_id in found]
    return there, await executions.provenance(connection, [inquiry.execution for inquiry, _ in there])


def _about(inquiry: Inquiry, origins: Mapping[int, Provenance]) -> JsonObject:
    origin = origins.get(inquiry.execution, Provenance())
    return {
        "inquiry_id": inquiry.id,
        "execution_id": inquiry.execution,
        "event_id": origin.event,
        "rule_ref": origin.rule_ref,
        "trigger_ref": origin.trigger_ref,
        "prompt": inquiry.question.prompt,
        "context": inquiry.question.context,
    }


def _question(inquiry: Inquiry) -> JsonObject:
    question = inquiry.question
    return {
        "response_schema": question.response_schema,
        "assigned_to": question.assigned_to,
        "timeout_at": _rfc3339(question.timeout_at),
    }


def _answer(inquiry: Inquiry) -> JsonObject:
    return {
        "response": inquiry.response,
        "responded_by": inquiry.responded_by,
        "responded_at": _rfc3339(inquiry.responded_at),
    }


def _rfc3339(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _result(inquiry: Inquiry) -> JsonObject:
    return {"succeeded": True, "inquiry": inquiry.id} | _answer(inquiry)


def _end(inquiry: Inquiry, origins: Mapping[int, Provenance], step: Step, result: JsonObject, cause: Cause) -> Finished:
    origin = origins.get(inquiry.execution, Provenance())
    return Finished(inquiry.execution, ASK, origin.event, step, dumps(result), cause)

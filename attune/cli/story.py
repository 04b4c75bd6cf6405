"""The story of an execution, put together from what the server knows of it."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from attune.cli.client import Client
from attune.cli.talk import first_line
from attune.cli.times import lasted, local

_LAST_LINES = 10
_INQUIRIES = 100


def story(client: Client, execution_id: int) -> dict[str, Any]:
    """The event, the enforcement, the execution with its states, and the last lines of its stderr."""
    execution = client.get(f"/api/v1/executions/{execution_id}")
    # What it was caused by may have been deleted since.
    event = client.find(f"/api/v1/events/{execution['event']}") if execution["event"] else None
    enforcement = client.find(f"/api/v1/enforcements/{execution['enforcement']}") if execution["enforcement"] else None
    return {
        "event": event,
        "enforcement": enforcement,
        "execution": execution,
        "inquiries": client.get(f"/api/v1/executions/{execution_id}/inquiries", per_page=_INQUIRIES),
        "states": list(_states(execution, _scheduled_at(client, execution))),
        "stderr": client.text(f"/api/v1/executions/{execution_id}/logs/stderr", tail=_LAST_LINES),
    }


def story_lines(told: dict[str, Any]) -> Iterator[str]:
    """The story for people."""
    event, enforcement, execution = told["event"], told["enforcement"], told["execution"]
    yield f"execution {execution['id']} of {execution['action_ref']} is {execution['status']}"
    yield ""
    yield from _cause(event, enforcement, execution)
    yield f"parameters {json.dumps(execution['config'], ensure_ascii=False)}"
    yield ""
    width = max(len(state["status"]) for state in told["states"])
    for state in told["states"]:
        yield f"{local(state['at'])}  {state['status']:<{width}}  {_while(state, execution)}".rstrip()
    for inquiry in reversed(told["inquiries"]):
        yield from inquiry_lines(inquiry)
    if execution["waiting_for"]:
        yield f"it waits for {execution['waiting_for']}, since {local(execution['waiting_since'])}"
    yield from _end(execution)
    if execution["retried_as"]:
        retry = execution["retried_as"]
        yield f"it was tried again: execution {retry}   (attune why execution {retry})"
    if told["stderr"]:
        yield f"\nthe last lines of stderr:\n{told['stderr'].rstrip()}"


def _cause(event: Any, enforcement: Any, execution: dict[str, Any]) -> Iterator[str]:
    if execution["retry_count"]:
        first, reason = execution["original_execution"], execution["retry_reason"]
        yield f"retry {execution['retry_count']} of execution {first}; the attempt before it ended: {reason}"
    elif execution["original_execution"]:
        yield f"execution {execution['original_execution']} once more"
    if execution["enforcement"] is None:
        parent = execution["parent"]
        asked = f"execution {parent}   (attune why execution {parent})" if parent else "somebody, without a rule"
        yield f"asked for by {asked}"
        return
    if event is None:
        yield f"event {execution['event']} of {execution['trigger_ref']}, which was deleted"
    else:
        yield f"event {event['id']} of {event['trigger_ref']} from {event['source_ref']} at {local(event['created'])}"
        if event["execution"]:
            yield caused_by(event["execution"])
    yield f"rule {execution['rule_ref']} matched it   (attune why event {execution['event']})"
    if enforcement is not None:
        waited = "" if event is None else f", {lasted(event['created'], enforcement['created'])} after the event"
        yield f"enforcement {enforcement['id']} is {enforcement['status']}{waited}"


def caused_by(execution: int) -> str:
    """Where an event comes from that an execution has caused."""
    return f"  caused by execution {execution}   (attune why execution {execution})"


def inquiry_lines(inquiry: dict[str, Any]) -> Iterator[str]:
    """What somebody was asked, for how long they were, and who answered."""
    yield f"inquiry {inquiry['id']} is {inquiry['status']}: {first_line(inquiry['prompt'])}"
    if inquiry["status"] == "responded":
        yield f"  {inquiry['responded_by']} answered after {lasted(inquiry['created'], inquiry['responded_at'])}"
    if inquiry["status"] == "pending":
        yield f"  open since {local(inquiry['created'])}   (attune inquiry answer {inquiry['id']})"


def _while(state: dict[str, Any], execution: dict[str, Any]) -> str:
    if state["until"] is None:
        return ""
    # Without a worker it does nothing but wait for an answer.
    how = "ran" if state["status"] == "running" and execution["worker"] is not None else "waited"
    return f"{how} {lasted(state['at'], state['until'])}"


def _end(execution: dict[str, Any]) -> Iterator[str]:
    result = execution["result"] or {}
    if result.get("error"):
        yield f"error: {first_line(result['error'])}"
    if execution["script"]:
        yield f"script {execution['script']}"


def _scheduled_at(client: Client, execution: dict[str, Any]) -> str | None:
    """When it was given to a worker, if it was, as long as the trace of messages is kept."""
    if execution["worker"] is None:
        return None
    trace = client.find(f"/api/v1/bus/trace/{execution['correlation_id']}")
    for hop in trace["hops"] if trace else ():
        is_its = hop["message_type"] == "ExecutionRequested" and hop["causation_id"] == execution["causation_id"]
        # What an execution asks for has the same cause as it has itself, and came later.
        is_new = datetime.fromisoformat(hop["published_at"]) >= datetime.fromisoformat(execution["created"])
        if is_its and is_new and hop["outcome"] == "done":
            return str(hop["done_at"])
    return None


def _states(execution: dict[str, Any], scheduled_at: str | None) -> Iterator[dict[str, Any]]:
    """The states that it went through: status, at, and until when (None: it is in it, or that is its end)."""
    known = [
        ("requested", execution["created"]),
        ("scheduled", scheduled_at),
        ("running", execution["started_at"]),
        (execution["status"], execution["finished_at"]),
    ]
    passed = [(status, at) for status, at in known if at is not None]
    ends = [at for _, at in passed[1:]]
    for (status, at), until in zip(passed, [*ends, None], strict=True):
        yield {"status": status, "at": at, "until": until}

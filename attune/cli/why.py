"""`attune why …`: why a rule fired, or why not."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from attune.cli.common import Context, Format, command

app = typer.Typer(name="why", help="Why something happened, or did not.", no_args_is_help=True)

_MARKS = {"true": "yes", "false": "no", "error": "error", "skipped": "not looked at"}
_DECISIONS = {
    "matched": "matched",
    "not_matched": "did not match",
    "disabled": "was disabled",
    "error": "could not be evaluated",
}


@command(app, "event")
def event(context: Context, event_id: Annotated[int, typer.Argument(min=1, help="The id of the event.")]) -> None:
    """What every rule made of an event, and what became of it."""
    explanation = context.client.get(f"/api/v1/events/{event_id}/explain")
    if context.format is not Format.TABLE:
        context.one(explanation)
        return
    for line in _lines(explanation):
        print(line)  # noqa: T201 - data


def _lines(explanation: dict[str, Any]) -> Iterator[str]:
    event = explanation["event"]
    yield f"event {event['id']} of {event['trigger_ref']} at {event['created']}"
    if explanation["state"] == "waiting":
        yield "  it waits for the rule matcher; this is what the rules would come to now"
    if explanation["state"] == "dead":
        yield f"  the rule matcher gave it up: see dead letter {explanation['dead_letter']}"
    if explanation["note"]:
        yield f"  {explanation['note']}"
    for rule in explanation["rules"]:
        yield ""
        yield f"rule {rule['rule_ref']} {_DECISIONS[rule['decision']]}"
        if rule["error"]:
            yield f"  {rule['error']}"
        if rule["conditions"]:
            yield from _clause(rule["conditions"], 1)
        yield from _consequence(rule)


def _clause(clause: dict[str, Any], depth: int) -> Iterator[str]:
    line = f"{'  ' * depth}{_MARKS[clause['outcome']]:<14}{clause['text']}"
    if clause["kind"] in {"comparison", "value"} and clause["outcome"] != "skipped":
        line += (
            "   (it is missing)"
            if clause.get("actual_missing")
            else f"   (it is {json.dumps(clause.get('actual'), ensure_ascii=False)})"
        )
    yield line
    if clause.get("error"):
        yield f"{'  ' * (depth + 1)}{clause['error']}"
    for inner in clause.get("clauses", ()):
        yield from _clause(inner, depth + 1)


def _consequence(rule: dict[str, Any]) -> Iterator[str]:
    enforcement, execution = rule["enforcement"], rule["execution"]
    if enforcement is not None:
        reason = f": {enforcement['reason']}" if enforcement["reason"] else ""
        yield f"  enforcement {enforcement['id']} is {enforcement['status']}{reason}"
    if execution is not None:
        error = f": {execution['error']}" if execution["error"] else ""
        yield f"  execution {execution['id']} is {execution['status']}{error}"

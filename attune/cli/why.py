"""`attune why …`: why a rule fired, or why not; why an execution ran, waited and ended as it did."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from attune.cli.client import segment
from attune.cli.common import Context, Format, command
from attune.cli.story import caused_by, inquiry_lines, story, story_lines
from attune.cli.talk import first_line
from attune.cli.times import counted, local, span

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


@command(app, "rule")
def rule(
    context: Context,
    ref: Annotated[str, typer.Argument(help="The ref of the rule: pack.name.")],
    since: Annotated[str, typer.Option(help="How far to look back: 30m, 24h, 7d.")] = "24h",
) -> None:
    """How often a rule fired, at which clauses it did not match, what went wrong, and what its executions came to."""
    history = context.client.get(f"/api/v1/rules/{segment(ref)}/explain", since=span(since))
    if context.format is not Format.TABLE:
        context.one(history)
        return
    for line in _history(history, since):
        print(line)  # noqa: T201 - data


@command(app, "execution")
def execution(
    context: Context, execution_id: Annotated[int, typer.Argument(min=1, help="The id of the execution.")]
) -> None:
    """From its event through its rule: when it got to which state, what it waits for, and how it ended."""
    told = story(context.client, execution_id)
    if context.format is not Format.TABLE:
        context.one(told)
        return
    for line in story_lines(told):
        print(line)  # noqa: T201 - data


def _history(history: dict[str, Any], since: str) -> Iterator[str]:
    more = "" if history["complete"] else "more than "
    yield f"rule {history['rule_ref']}, the last {since}: {more}{counted(history['events'], 'event')}"
    yield f"  {history['trigger_ref']} starts {history['action_ref']}"
    yield from _newest(history)
    yield f"  fired {counted(history['fired'], 'time')}{_such_as(history['last_fired_event'])}"
    yield from _reasons("did not match", history["not_matched"])
    yield from _reasons("could not be evaluated", history["errors"])
    yield from _reasons("matched, and nothing was run", history["not_run"])
    if history["disabled"]:
        yield f"  was disabled for {counted(history['disabled'], 'event')}"
    if history["waiting"]:
        yield f"  {counted(history['waiting'], 'event')} waiting for the rule matcher: see attune bus queues"
    yield from _skipped(history["skipped"])
    if history["executions"]:
        came_to = ", ".join(f"{count} {status}" for status, count in history["executions"].items())
        yield f"  executions: {came_to}"
    yield from _reasons("failed", history["failures"])
    if history["next_fire_at"]:
        yield f"  next at {local(history['next_fire_at'])}"
    for note in history["notes"]:
        yield f"  {note}"


def _newest(history: dict[str, Any]) -> Iterator[str]:
    if history["events"]:
        return
    newest = history["newest_event"]
    if newest is None:
        yield f"  no event of {history['trigger_ref']} was for it in this time, so there was nothing to match"
    else:
        yield f"  nothing to match: the newest event was {newest['id']} at {local(newest['created'])}"


def _reasons(heading: str, reasons: list[dict[str, Any]]) -> Iterator[str]:
    if reasons:
        yield f"  {heading} {counted(sum(reason['count'] for reason in reasons), 'time')}:"
    width = max((len(str(reason["count"])) for reason in reasons), default=0)
    for reason in reasons:
        said = first_line(reason["text"]) + actual(reason) + _such_as(reason["event"])
        yield f"    {reason['count']:>{width}}  {said}"


def actual(reason: Mapping[str, Any]) -> str:
    """What was there where a clause looked, if it looks at a single value."""
    if reason["actual_missing"] is None:
        return ""
    return "; it is missing" if reason["actual_missing"] else f"; it is {_json(reason['actual'])}"


def _skipped(skips: list[dict[str, Any]]) -> Iterator[str]:
    for skip in skips:
        count = "very many instants" if skip["count"] is None else counted(skip["count"], "instant")
        until = "" if skip["first"] == skip["last"] else f" until {local(skip['last'])}"
        yield f"  skipped {count}, {local(skip['first'])}{until}: {skip['reason']}"


def _such_as(event: int | None) -> str:
    return "" if event is None else f"   (attune why event {event})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(explanation: dict[str, Any]) -> Iterator[str]:
    event = explanation["event"]
    yield f"event {event['id']} of {event['trigger_ref']} at {local(event['created'])}"
    if event["execution"]:
        yield caused_by(event["execution"])
    if explanation["state"] == "waiting":
        yield "  it waits for the rule matcher; this is what the rules would come to now"
    if explanation["state"] == "dead":
        yield f"  the rule matcher gave it up: attune bus dead show {explanation['dead_letter']}"
    if explanation["state"] == "discarded":
        yield "  this is what the rules would have come to"
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
        line += "   (it is missing)" if clause.get("actual_missing") else f"   (it is {_json(clause.get('actual'))})"
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
        attempt = f", attempt {execution['attempts']}," if execution["attempts"] > 1 else ""
        yield f"  execution {execution['id']}{attempt} is {execution['status']}{error}"
        for inquiry in execution["inquiries"]:
            yield from (f"    {line}" for line in inquiry_lines(inquiry))

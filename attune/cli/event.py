"""`attune event …` and `attune enforcement …`: what happened, and which rules matched it."""

from typing import Annotated

import typer

from attune.cli.common import Context, IdempotencyKey, command, json_argument, parameters

event = typer.Typer(name="event", help="Events: what happened.", no_args_is_help=True)
enforcement = typer.Typer(name="enforcement", help="Enforcements: that a rule matched an event.", no_args_is_help=True)

EventId = Annotated[int, typer.Argument(min=1, help="The id of the event.")]
EnforcementId = Annotated[int, typer.Argument(min=1, help="The id of the enforcement.")]
Limit = Annotated[int, typer.Option(help="How many, at most.", min=1)]
Trigger = Annotated[str | None, typer.Option(help="Only those of the trigger with this ref.", show_default=False)]
Rule = Annotated[str | None, typer.Option(help="Only those for the rule with this ref.", show_default=False)]
Status = Annotated[str | None, typer.Option(help="Only those in this state.", show_default=False)]


@command(event, "list")
def list_events(context: Context, trigger: Trigger = None, rule: Rule = None, limit: Limit = 50) -> None:
    """List events, the newest first."""
    items = list(context.client.pages("/api/v1/events", limit, trigger_ref=trigger, rule_ref=rule))
    context.rows(items, ["id", "trigger_ref", "rule_ref", "source_ref", "created"])


@command(event, "show")
def show_event(context: Context, event_id: EventId) -> None:
    """Show an event."""
    context.one(context.client.get(f"/api/v1/events/{event_id}"))


@command(event, "emit")
def emit(
    context: Context,
    trigger: Annotated[str, typer.Argument(help="The ref of the trigger.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="name=value of the payload.", show_default=False)
    ] = None,
    payload: Annotated[str | None, typer.Option(help="The payload as JSON, or @file.", show_default=False)] = None,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Say that something happened."""
    document = json_argument(payload, "the payload") if payload is not None and not param else None
    body = {"trigger_ref": trigger, "payload": document if document is not None else parameters(param or [], payload)}
    created = context.client.send("POST", "/api/v1/events", body, idempotency_key=idempotency_key)["data"]
    context.done(f"event {created['id']}; what became of it: attune why event {created['id']}", created)


@command(enforcement, "list")
def list_enforcements(
    context: Context, rule: Rule = None, trigger: Trigger = None, status: Status = None, limit: Limit = 50
) -> None:
    """List enforcements, the newest first."""
    items = context.client.pages("/api/v1/enforcements", limit, rule_ref=rule, trigger_ref=trigger, status=status)
    context.rows(list(items), ["id", "rule_ref", "event", "status", "reason", "created"])


@command(enforcement, "show")
def show_enforcement(context: Context, enforcement_id: EnforcementId) -> None:
    """Show an enforcement."""
    context.one(context.client.get(f"/api/v1/enforcements/{enforcement_id}"))

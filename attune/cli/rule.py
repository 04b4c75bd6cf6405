"""`attune rule …`: rules."""

import os
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from attune.cli.client import segment
from attune.cli.common import Context, command, json_argument, parameters
from attune.cli.talk import CommandError, Exit, say
from attune.cli.timer import on_clocks
from attune.cli.zones import machine_zone

app = typer.Typer(name="rule", help="Rules: which events start which actions.", no_args_is_help=True)

Ref = Annotated[str, typer.Argument(help="The ref of the rule: pack.name.")]
Pairs = Annotated[list[str] | None, typer.Option(help="name=value; the value is JSON or text.", show_default=False)]
Conditions = Annotated[str | None, typer.Option(help="JSON, or @file.", show_default=False)]
# Triggers whose times are those of a zone.
_OVERLAP = "While an execution of the rule has not ended: allow another one, skip it, or queue it."
_BY_THE_WALL = ("core.crontimer", "core.rruletimer", "core.datetimetimer")

When = Annotated[str | None, typer.Option(help="A condition as an expression.", show_default=False)]


@command(app, "list")
def list_(
    context: Context,
    enabled: Annotated[bool, typer.Option("--enabled", help="Only those that are switched on.")] = False,
    limit: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 1000,
) -> None:
    """List rules."""
    path = "/api/v1/rules/enabled" if enabled else "/api/v1/rules"
    context.rows(
        list(context.client.pages(path, limit)),
        ["ref", "enabled", "trigger_ref", "action_ref", "next_fire_at", "label"],
    )


@command(app, "show")
def show(context: Context, ref: Ref) -> None:
    """Show a rule."""
    context.one(context.client.get(_path(ref)))


@command(app, "create")
def create(
    context: Context,
    ref: Ref,
    trigger: Annotated[str, typer.Option(help="The ref of the trigger.")],
    action: Annotated[str, typer.Option(help="The ref of the action.")],
    label: Annotated[str | None, typer.Option(help="A name for people; without, the ref.", show_default=False)] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.", show_default=False)] = None,
    trigger_param: Pairs = None,
    action_param: Pairs = None,
    conditions: Conditions = None,
    when: When = None,
    overlap: Annotated[str, typer.Option(help=_OVERLAP)] = "allow",
    disabled: Annotated[bool, typer.Option("--disabled", help="Do not switch it on yet.")] = False,
) -> None:
    """Make a rule. Times of day are in the time zone of this machine, unless the trigger is given another."""
    trigger_params = parameters(trigger_param or [], None)
    needs_zone = _needs_zone(trigger, trigger_params)
    zone = machine_zone(os.environ) if needs_zone else None
    if zone is not None:
        trigger_params["timezone"] = zone
    body = {
        "ref": ref,
        "pack_ref": ref.partition(".")[0],
        "label": label or ref,
        "description": description,
        "trigger_ref": trigger,
        "action_ref": action,
        "trigger_params": trigger_params,
        "action_params": parameters(action_param or [], None),
        "conditions": _conditions(conditions, when),
        "enabled": not disabled,
        "overlap": overlap,
    }
    _saved(context, context.client.send("POST", "/api/v1/rules", body))
    if needs_zone:
        known = f"in {zone}, as on this machine" if zone else "in UTC: this machine does not tell its zone"
        say(f"Its times are {known}; --trigger-param timezone=NAME sets another.")


@command(app, "edit")
def edit(
    context: Context,
    ref: Ref,
    trigger: Annotated[str | None, typer.Option(help="The ref of another trigger.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(help="The ref of another action.", show_default=False)] = None,
    label: Annotated[str | None, typer.Option(help="A name for people.", show_default=False)] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.", show_default=False)] = None,
    trigger_param: Pairs = None,
    action_param: Pairs = None,
    conditions: Conditions = None,
    when: When = None,
    overlap: Annotated[str | None, typer.Option(help=_OVERLAP, show_default=False)] = None,
) -> None:
    """Change a rule. Parameters that are given replace those of the same name."""
    before = context.client.get(_path(ref))
    body: dict[str, Any] = {
        "trigger_ref": trigger,
        "action_ref": action,
        "label": label,
        "description": description,
        "conditions": _conditions(conditions, when),
        "overlap": overlap,
    }
    if trigger_param:
        body["trigger_params"] = before["trigger_params"] | parameters(trigger_param, None)
    if action_param:
        body["action_params"] = before["action_params"] | parameters(action_param, None)
    changes = {name: value for name, value in body.items() if value is not None}
    if not changes:
        raise CommandError("There is nothing to change; attune rule edit --help tells what can be.", Exit.USAGE)
    _saved(context, context.client.send("PUT", _path(ref), changes))


@command(app, "enable")
def enable(context: Context, ref: Ref) -> None:
    """Switch a rule on."""
    _saved(context, context.client.send("POST", f"{_path(ref)}/enable"))


@command(app, "disable")
def disable(context: Context, ref: Ref) -> None:
    """Switch a rule off."""
    _saved(context, context.client.send("POST", f"{_path(ref)}/disable"))


@command(app, "delete")
def delete(context: Context, ref: Ref) -> None:
    """Delete a rule. What it caused stays."""
    context.confirm(f"Delete the rule {ref}?")
    answer = context.client.send("DELETE", _path(ref))
    context.done(answer["message"], answer)


@command(app, "export")
def export(context: Context, ref: Ref) -> None:
    """Write a rule as a file: the one that it comes from, as it is, or for a rule that somebody made a new one."""
    sys.stdout.buffer.write(context.client.content(f"{_path(ref)}/source"))


def _path(ref: str) -> str:
    return f"/api/v1/rules/{segment(ref)}"


def _conditions(document: str | None, when: str | None) -> Any:
    if document is not None and when is not None:
        raise CommandError("--conditions and --when say the same in two ways; give one of them.", Exit.USAGE)
    if when is not None:
        return {"expression": when}
    return None if document is None else json_argument(document, "the conditions")


def _needs_zone(trigger: str, params: dict[str, Any]) -> bool:
    """Whether there are times on the clock on the wall, and it is not said on whose."""
    is_whole = trigger == "core.datetimetimer" and _has_offset(params.get("fire_at"))
    return trigger in _BY_THE_WALL and "timezone" not in params and not is_whole


def _has_offset(text: Any) -> bool:
    try:
        return datetime.fromisoformat(str(text).upper()).tzinfo is not None
    except ValueError:
        return False


def _saved(context: Context, answer: Any) -> None:
    rule = answer["data"]
    for warning in rule.get("warnings", ()):
        say(f"warning: {warning}")
    state = "enabled" if rule["enabled"] else "disabled"
    instants = rule.get("timer", {}).get("next", ()) if rule["enabled"] else ()
    lines = [f"  {on_clocks(instant['local'])}  {instant['utc']}" for instant in instants]
    upcoming = f", next ({rule['timer']['timezone']} and UTC):" if lines else ""
    context.done("\n".join([f"{rule['ref']} is {state}{upcoming}", *lines]), rule)

"""`attune timer …`: what waits for the clock."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from attune.cli.client import segment
from attune.cli.common import Context, Format, command, print_table
from attune.cli.talk import say

app = typer.Typer(name="timer", help="Timers: rules that fire by the clock.", no_args_is_help=True)

_COLUMNS = ["rule_ref", "trigger_ref", "schedule", "timezone", "next_fire_at", "last_fired_at", "execution_count"]


@command(app, "list")
def list_(context: Context, limit: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 1000) -> None:
    """List timers: when they fire, have fired, and what they are doing."""
    timers = list(context.client.pages("/api/v1/timers", limit))
    if context.format is Format.TABLE:
        timers = [timer | {"state": _state(timer)} for timer in timers]
    context.rows(timers, [*_COLUMNS, "state"])


@command(app, "next")
def next_(
    context: Context,
    ref: Annotated[str, typer.Argument(metavar="RULE", help="The ref of the rule: pack.name.")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many instants.", min=1, max=100)] = 5,
) -> None:
    """Show when a rule fires next, in its time zone and in UTC."""
    timer = context.client.get(f"/api/v1/timers/{segment(ref)}/next", count=count)
    if context.format is not Format.TABLE:
        context.one(timer)
        return
    if timer["state"] != "waiting":
        say(f"{ref}: {_state(timer)}" + (". If it were enabled now:" if timer["state"] == "disabled" else ""))
    if timer["next"]:
        print_table([timer["timezone"], "UTC"], [(on_clocks(one["local"]), one["utc"]) for one in timer["next"]])


def on_clocks(text: str) -> str:
    """An instant as people say it, with the day of the week."""
    moment = datetime.fromisoformat(text)
    return f"{moment:%a %Y-%m-%d %H:%M:%S} {moment.isoformat()[-6:]}"


def _state(timer: Mapping[str, Any]) -> str:
    return f"cannot be read: {timer['problem']}" if timer["problem"] else str(timer["state"])

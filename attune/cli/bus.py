"""`attune bus …`: the routing table, the queues, and the chain of a message; dead letters stand in `dead.py`."""

from typing import Annotated, Any

import typer

from attune.cli import dead
from attune.cli.common import Context, Format, command, print_table

app = typer.Typer(name="bus", help="The bus: how messages travel, and where they wait.", no_args_is_help=True)
app.add_typer(dead.app)


@command(app, "topology")
def topology(context: Context) -> None:
    """Show the routing table."""
    table = context.client.get("/api/v1/bus/topology")
    if context.format is not Format.TABLE:
        context.one(table)
        return
    print_table(["exchange", "kind", "for"], [[e["name"], e["kind"], e["purpose"]] for e in table["exchanges"]])
    print()  # noqa: T201 - data
    rows = [
        [q["name"], q["kind"], q["exchange"], " ".join(q["keys"]), q["message"] or "-", q["consumer"]]
        for q in table["queues"]
    ]
    print_table(["queue", "kind", "exchange", "key", "message", "consumer"], rows)


@command(app, "queues")
def queues(context: Context) -> None:
    """Show what waits, and what was done since the start."""
    answer = context.client.get("/api/v1/bus/queues")
    if context.format is not Format.TABLE:
        context.one(answer)
        return
    columns = ["name", "kind", "waiting", "in_flight", "published", "done", "retried", "dead", "rescued", "oldest"]
    context.rows(
        [queue | {"published": sum(queue.get("published", {}).values())} for queue in answer["queues"]], columns
    )
    for kind, count in answer["unroutable"].items():
        print(f"unroutable: {count} of {kind}")  # noqa: T201 - data


@command(app, "trace")
def trace(
    context: Context,
    correlation_id: Annotated[str, typer.Argument(help="The correlation_id of an event, an execution or a log line.")],
) -> None:
    """Show every hop of a chain of messages: published, delivered, done, by whom."""
    hops = context.client.get(f"/api/v1/bus/trace/{correlation_id}")["hops"]
    if context.format is not Format.TABLE:
        context.one({"correlation_id": correlation_id, "hops": hops})
        return
    context.rows(
        [_hop(hop) for hop in hops],
        ["message", "queue", "by", "attempt", "outcome", "published_at", "delivered_at", "done_at", "error"],
    )


def _hop(hop: dict[str, Any]) -> dict[str, Any]:
    indent = "  " * hop["depth"]
    return hop | {"message": f"{indent}{hop['message_type']}", "by": hop["consumer"] or "-"}

"""`attune execution …` and `attune run`: what ran, and running something."""

import sys
from codecs import getincrementaldecoder
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attune.cli.client import Client
from attune.cli.common import Context, Format, IdempotencyKey, command, parameters
from attune.cli.stream import follow
from attune.cli.talk import CommandError, Exit, is_read, say

app = typer.Typer(name="execution", help="Executions: what ran, runs, or waits.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(min=1, help="The id of the execution.")]
Ref = Annotated[str | None, typer.Option(help="Only those of this ref, or of `pack.*`.", show_default=False)]
Status = Annotated[str | None, typer.Option(help="Only those in this state.", show_default=False)]

Param = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="name=value; the value is JSON or text.", show_default=False),
]
Params = Annotated[str | None, typer.Option(help="Parameters as JSON, or @file.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--detach", help="Wait for its end and show its result.")]

_TERMINAL = {"completed", "failed", "cancelled", "timeout", "abandoned"}
_LAST_LINES = 10
_WAIT = 30


@command(app, "list")
def list_(
    context: Context,
    status: Status = None,
    action: Ref = None,
    rule: Ref = None,
    trigger: Ref = None,
    limit: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 50,
) -> None:
    """List executions, the newest first."""
    items = context.client.pages(
        "/api/v1/executions", limit, status=status, action_ref=action, rule_ref=rule, trigger_ref=trigger
    )
    context.rows(list(items), ["id", "status", "action_ref", "rule_ref", "waiting_for", "created", "finished_at"])


@command(app, "show")
def show(context: Context, execution_id: Id) -> None:
    """Show an execution, the last lines of its stderr, and where its script lies."""
    execution = context.client.get(f"/api/v1/executions/{execution_id}")
    script = execution.pop("script")
    if context.format is not Format.TABLE:
        context.one(execution | {"script": script})
        return
    context.one(execution)
    stderr = context.client.text(f"/api/v1/executions/{execution_id}/logs/stderr", tail=_LAST_LINES)
    if stderr:
        print(f"\nthe last lines of stderr:\n{stderr.rstrip()}")  # noqa: T201 - data
    if script:
        print(f"\nscript: {script}")  # noqa: T201 - data


@command(app, "logs")
def logs(
    context: Context,
    execution_id: Id,
    stderr: Annotated[bool, typer.Option("--stderr", help="What it printed to stderr instead of stdout.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only so many of the last lines.", min=1, show_default=False)] = None,
    follows: Annotated[bool, typer.Option("--follow", "-f", help="Show what it prints until it has ended.")] = False,
) -> None:
    """Show what an execution printed."""
    stream = "stderr" if stderr else "stdout"
    if follows:
        if context.format is not Format.TABLE or tail is not None:
            raise CommandError("--follow shows all, as it is printed: leave --tail and --output away.", Exit.USAGE)
        _follow(context.client, execution_id, stream)
        return
    text = context.client.text(f"/api/v1/executions/{execution_id}/logs/{stream}", tail=tail)
    if context.format is not Format.TABLE:
        context.one({"execution": execution_id, "stream": stream, "text": text})
        return
    if not text:
        say(f"execution {execution_id} has printed nothing to {stream}; see attune execution show {execution_id}")
    sys.stdout.write(text)


def _follow(client: Client, execution_id: int, stream: str) -> None:
    path = f"/api/v1/executions/{execution_id}"
    # A character may lie across the parts.
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    offset, status = 0, ""
    try:
        for told in follow(client, "/api/v1/executions/stream", execution_id=execution_id):
            for one in told:
                if one.name == "reset":
                    status = _state(client.get(path), is_known=bool(status))
                elif one.name == "message":
                    status = one.data["status"]
            # In this order: whatever it printed is in its log before it has ended.
            while part := client.content(f"{path}/logs/{stream}", offset=offset):
                offset += len(part)
                sys.stdout.write(decoder.decode(part))
                sys.stdout.flush()
            if status in _TERMINAL:
                say(f"execution {execution_id} is {status}")
                return
            if not is_read():
                return
    except KeyboardInterrupt:
        say(f"\nexecution {execution_id} goes on; to end it: attune execution cancel {execution_id}")


def _state(execution: Mapping[str, Any], *, is_known: bool) -> str:
    """The state of an execution; what it waits for is said once."""
    if not is_known and execution["waiting_for"]:
        say(f"execution {execution['id']} is {execution['status']}: it waits for {execution['waiting_for']}")
    return str(execution["status"])


@command(app, "cancel")
def cancel(context: Context, execution_id: Id) -> None:
    """Ask an execution to stop."""
    execution = context.client.send("POST", f"/api/v1/executions/{execution_id}/cancel")["data"]
    context.done(f"execution {execution_id} is {execution['status']}", execution)


@command(app, "rerun")
def rerun(
    context: Context,
    execution_id: Id,
    param: Param = None,
    params: Params = None,
    wait: Wait = True,
) -> None:
    """Do once more what an execution did, with the same parameters, or with others for those that are given."""
    body = {"parameters": parameters(param or [], params)}
    execution = context.client.send("POST", f"/api/v1/executions/{execution_id}/rerun", body)["data"]
    _see_through(context, execution, wait=wait)


def run(
    context: Context,
    action: Annotated[str, typer.Argument(help="The ref of the action.")],
    param: Param = None,
    params: Params = None,
    wait: Wait = True,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Run an action."""
    body = {"action_ref": action, "parameters": parameters(param or [], params)}
    # Without waiting: who ends the wait is to know which execution goes on.
    path = "/api/v1/executions/execute"
    execution = context.client.send("POST", path, body, idempotency_key=idempotency_key)["data"]
    _see_through(context, execution, wait=wait)


def _see_through(context: Context, execution: dict[str, Any], *, wait: bool) -> None:
    """Wait for the end of an execution, if that is wanted, show it, and leave with 1 when it did not complete."""
    try:
        while wait and execution["status"] not in _TERMINAL:
            execution = context.client.get(f"/api/v1/executions/{execution['id']}", wait=_WAIT)
    except KeyboardInterrupt:
        number = execution["id"]
        say(f"\nexecution {number} goes on; to see it: attune execution logs {number} --follow")
        say(f"to end it: attune execution cancel {number}")
        sys.exit(Exit.INTERRUPTED)
    if context.format is not Format.TABLE:
        context.one(execution)
    else:
        _tell(execution)
    if execution["status"] in _TERMINAL - {"completed"}:
        sys.exit(Exit.FAILED)


def _tell(execution: dict[str, Any]) -> None:
    say(f"execution {execution['id']} is {execution['status']}")
    result = execution["result"] or {}
    if result.get("error"):
        say(result["error"])
    if execution["retried_as"]:
        say(f"it is tried again as execution {execution['retried_as']}")
    if result.get("data") is not None:
        import json

        print(json.dumps(result["data"], indent=2, ensure_ascii=False))  # noqa: T201 - data
    elif result.get("stdout"):
        print(result["stdout"].rstrip("\n"))  # noqa: T201 - data

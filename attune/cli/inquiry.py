"""`attune inquiry …`: what people are asked, and answering it."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attune.cli.client import Refused
from attune.cli.common import Context, Format, command, json_argument, parameters
from attune.cli.talk import CommandError, Exit, say

app = typer.Typer(name="inquiry", help="Inquiries: what people are asked.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(min=1, help="The id of the inquiry.")]

_NOTHING = object()


@command(app, "list")
def list_(
    context: Context,
    unanswered: Annotated[bool, typer.Option("--open", help="Only those that wait for an answer.")] = False,
    execution: Annotated[int | None, typer.Option(help="Only those of this execution.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 50,
) -> None:
    """List inquiries, the newest first."""
    status = "pending" if unanswered else None
    items = context.client.pages("/api/v1/inquiries", limit, status=status, execution=execution)
    context.rows(
        list(items), ["id", "status", "prompt", "execution", "assigned_to", "created", "timeout_at", "responded_by"]
    )


@command(app, "show")
def show(context: Context, inquiry_id: Id) -> None:
    """Show an inquiry: the question, what an answer must be like, and the answer."""
    inquiry = context.client.get(f"/api/v1/inquiries/{inquiry_id}")
    context.one(inquiry)
    if context.format is Format.TABLE and inquiry["status"] == "pending":
        say(f"\nto answer it: attune inquiry answer {inquiry_id}")


@command(app, "answer")
def answer(
    context: Context,
    inquiry_id: Id,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="name=value of the answer; the value is JSON or text.", show_default=False),
    ] = None,
    response: Annotated[str | None, typer.Option(help="The answer as JSON, or @file.", show_default=False)] = None,
) -> None:
    """Answer an inquiry; without an answer on the command line, ask for it, field by field."""
    path = f"/api/v1/inquiries/{inquiry_id}"
    if response is not None and not param:
        answered = context.client.send("POST", f"{path}/respond", {"response": json_argument(response, "the answer")})
    elif param:
        answered = context.client.send("POST", f"{path}/respond", {"response": parameters(param, response)})
    else:
        answered = _talk(context, context.client.get(path))
    inquiry = answered["data"]
    context.done(f"inquiry {inquiry_id} is answered; execution {inquiry['execution']} goes on", inquiry)


def _talk(context: Context, inquiry: Mapping[str, Any]) -> Any:
    """Ask for the answer until the server takes it."""
    number = inquiry["id"]
    if inquiry["status"] != "pending":
        raise CommandError(f"Inquiry {number} is {inquiry['status']}: see attune inquiry show {number}", Exit.REFUSED)
    if not sys.stdin.isatty():
        raise CommandError(f"Say what the answer is: {_example(inquiry)}", Exit.USAGE)
    say(inquiry["prompt"])
    fields = _fields(inquiry["response_schema"] or {})
    values: dict[str, Any] = {}
    wanted = [*fields]
    while True:
        for name in wanted:
            value = _ask(name, fields[name])
            if value is _NOTHING:
                values.pop(name, None)
            else:
                values[name] = value
        whole = values if fields else _json_or_text(typer.prompt("answer", err=True))
        try:
            return context.client.send("POST", f"/api/v1/inquiries/{number}/respond", {"response": whole})
        except Refused as error:
            wrong = [pointer.split("/")[2] for pointer, _ in error.errors if pointer.startswith("/response/")]
            wanted = [name for name in fields if name in wrong]
            if not wanted:
                raise
            for pointer, text in error.errors:
                say(f"{pointer.removeprefix('/response/')}: {text}")


def _fields(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a schema says of each field, and whether it is required, in the order of their positions."""
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        required = schema.get("required", [])
        fields = {name: {**entry, "required": name in required} for name, entry in schema["properties"].items()}
    else:
        fields = {name: dict(entry) for name, entry in schema.items()}
    return dict(sorted(fields.items(), key=lambda field: field[1].get("position", sys.maxsize)))


def _ask(name: str, field: Mapping[str, Any]) -> Any:
    """The value that a person types for a field; nothing when they leave it out."""
    if field.get("description"):
        say(field["description"])
    hint = "/".join(map(str, field["enum"])) if "enum" in field else field.get("type", "")
    label = f"{name} ({hint})" if hint else name
    default = field.get("default", _NOTHING)
    if field.get("type") == "boolean":
        chosen = None if default is _NOTHING else bool(default)
        return typer.confirm(name, default=chosen, err=True)
    if default is not _NOTHING:
        typed = typer.prompt(label, default=default if isinstance(default, str) else json.dumps(default), err=True)
    elif field.get("required") is True:
        typed = typer.prompt(label, err=True)
    else:
        typed = typer.prompt(label, default="", show_default=False, err=True)
        if typed == "":
            return _NOTHING
    return typed if field.get("type") == "string" else _json_or_text(typed)


def _json_or_text(typed: str) -> Any:
    try:
        return json.loads(typed)
    except ValueError:
        return typed


def _example(inquiry: Mapping[str, Any]) -> str:
    """A command that answers, for who has no terminal."""
    fields = _fields(inquiry["response_schema"] or {})
    given = " ".join(f"-p {name}=…" for name in fields) or "--response '…'"
    return f"attune inquiry answer {inquiry['id']} {given}"

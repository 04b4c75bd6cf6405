"""`attune pack|trigger|action list|show`: what there is to build rules from."""

from typing import Annotated

import typer

from attune.cli.client import segment
from attune.cli.common import Context, command

Limit = Annotated[int, typer.Option(help="How many, at most.", min=1)]


def _noun(kind: str, columns: list[str]) -> typer.Typer:
    app = typer.Typer(name=kind, help=f"The {kind}s.", no_args_is_help=True)

    @command(app, "list", text=f"List {kind}s.")
    def list_(context: Context, limit: Limit = 1000) -> None:
        context.rows(list(context.client.pages(f"/api/v1/{kind}s", limit)), columns)

    @command(app, "show", text=f"Show {'an' if kind == 'action' else 'a'} {kind}.")
    def show(context: Context, ref: Annotated[str, typer.Argument(help=f"The ref of the {kind}.")]) -> None:
        context.one(context.client.get(f"/api/v1/{kind}s/{segment(ref)}"))

    return app


pack = _noun("pack", ["ref", "version", "label", "description"])
trigger = _noun("trigger", ["ref", "enabled", "label", "description"])
action = _noun("action", ["ref", "runtime_ref", "label", "description"])

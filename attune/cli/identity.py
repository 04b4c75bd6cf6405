"""`attune identity …`: who may sign in."""

import sys
from typing import Annotated

import typer

from attune.cli.client import segment
from attune.cli.common import Context, command
from attune.cli.talk import CommandError, Exit

app = typer.Typer(name="identity", help="Identities: who may sign in.", no_args_is_help=True)


@command(app, "create")
def create(
    context: Context,
    login: Annotated[str, typer.Argument(help="What they sign in with.")],
    display_name: Annotated[str | None, typer.Option(help="Their name, for people.", show_default=False)] = None,
    administrator: Annotated[bool, typer.Option("--administrator", help="They may do everything.")] = False,
) -> None:
    """Make an identity. It cannot sign in until it has a password."""
    body = {"login": login, "display_name": display_name, "administrator": administrator}
    created = context.client.send("POST", "/api/v1/identities", body)["data"]
    context.done(f"{login} exists; give it a password: attune identity passwd {login}", created)


@command(app, "passwd")
def passwd(context: Context, login: Annotated[str, typer.Argument(help="What they sign in with.")]) -> None:
    """Give an identity a password, and sign it out everywhere. Without a terminal it is read from stdin."""
    if sys.stdin.isatty():
        password = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise CommandError("There is no password on stdin.", Exit.USAGE)
    changed = context.client.send("PUT", f"/api/v1/identities/{segment(login)}/password", {"password": password})[
        "data"
    ]
    context.done(f"{login} has a new password.", changed)

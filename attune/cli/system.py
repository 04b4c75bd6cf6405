"""`attune status`, `attune psql` and `attune version`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from attune import __version__
from attune.base.installation import installation
from attune.cli.common import Context, Format
from attune.cli.status import status_lines
from attune.cli.talk import CommandError, Exit


def status(context: Context) -> None:
    """Show where the server is, what it does, what failed in the last day, and what comes next."""
    found = context.client.get("/api/v1/system/status")
    if context.format is not Format.TABLE:
        context.one(found)
        return
    for line in status_lines(found):
        print(line)  # noqa: T201 - data


def version() -> None:
    """Show the version of Attune."""
    print(__version__)  # noqa: T201 - data


def psql(
    arguments: typer.Context,
    write: Annotated[bool, typer.Option("--write", help="Let it change things; otherwise it can only read.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="The data directory.", show_default=False)] = None,
) -> None:
    """Run psql on the database that the server uses; all other arguments are psql's."""
    place = installation(data_dir)
    try:
        found = json.loads(place.description.read_text())["psql"]
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"No server runs on {place.data}. Start one with: attune serve", Exit.UNREACHABLE) from error
    environment = {**os.environ, **found["environment"]}
    if not write:
        options = environment.get("PGOPTIONS", "")
        environment["PGOPTIONS"] = f"{options} -c default_transaction_read_only=on".strip()
    try:
        os.execvpe(  # noqa: S606 - psql takes our place
            found["program"], [found["program"], *arguments.args], environment
        )
    except OSError as error:
        raise CommandError(f"{found['program']} cannot be started: {error.strerror}.", Exit.REFUSED) from error

"""Talking to people: errors on stderr, and what the exit code means."""

import sys
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from attune.base.errors import AttuneError, BadInput

if TYPE_CHECKING:
    import typer


class Exit(IntEnum):
    FAILED = 1
    """The execution failed."""
    USAGE = 2
    REFUSED = 3
    """The server, or Attune itself, said no."""
    UNREACHABLE = 4


class CommandError(AttuneError):
    """A command cannot go on; `exit_code` tells scripts why."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(message: str) -> None:
    """Tell a person something that is not the data they asked for."""
    print(message, file=sys.stderr)  # noqa: T201 - this is how a command talks


def run(app: "typer.Typer") -> NoReturn:
    """Run the command line, and leave with the exit code of what happened."""
    try:
        app()
    except CommandError as error:
        say(f"attune: {error.message}")
        sys.exit(error.exit_code)
    except AttuneError as error:
        say(f"attune: {error.message}")
        for problem in error.problems if isinstance(error, BadInput) else ():
            say(f"  {problem}")
        sys.exit(Exit.REFUSED)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)

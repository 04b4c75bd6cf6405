"""Talking to people: errors on stderr, and what the exit code means."""

import io
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

from attune.base.errors import AttuneError, BadInput

if TYPE_CHECKING:
    import typer


class Exit(IntEnum):
    FAILED = 1
    """The execution failed, or a test of a pack."""
    USAGE = 2
    REFUSED = 3
    """The server, or Attune itself, said no."""
    UNREACHABLE = 4
    INTERRUPTED = 130
    """Ctrl-C ended the wait for an execution."""


class CommandError(AttuneError):
    """A command cannot go on; `exit_code` tells scripts why."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(message: str) -> None:
    """Tell a person something that is not the data they asked for."""
    print(message, file=sys.stderr)  # noqa: T201 - this is how a command talks


def first_line(text: str) -> str:
    """The first line of a text; what an action printed at its end follows in the others."""
    return text.partition("\n")[0]


class _Heedless(io.FileIO):
    """Drops what nobody reads any more: that `head` has seen enough is no failure, and the exit code says what is."""

    is_read = True

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.is_read = False
            return len(data)


def is_read() -> bool:
    """Whether somebody still reads what is printed, as far as the last line has told."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return bool(getattr(raw, "is_read", True))


def run(app: "typer.Typer") -> NoReturn:
    """Run the command line, and leave with the exit code of what happened."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        bare = io.BufferedWriter(_Heedless(sys.stdout.fileno(), "wb", closefd=False))
        sys.stdout = io.TextIOWrapper(bare, sys.stdout.encoding, "replace", line_buffering=sys.stdout.isatty())
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
    sys.exit(0)

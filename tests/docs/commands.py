"""Writes `docs/cli.md` from the command line: `python -m tests.docs.commands`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from attune.cli.common import _COMMON
from attune.cli.root import app

PATH = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

_INTRODUCTION = """\
# The command line

This page is written from the commands by `python -m tests.docs.commands`; a test keeps it true. `attune COMMAND --help`
says the same.

`attune serve` is the server. `check`, `pack new` and `pack test` work on files and need none; every other command asks
one over HTTP. On the server's machine it goes through the socket file in the data directory and needs no password. The
server is the one of

1. `--server URL`, or `--data-dir FOLDER`;
2. `ATTUNE_API_URL`;
3. `ATTUNE_DATA_DIR`, or the data directory that `attune serve` has without options.

To a URL it sends the token in `ATTUNE_API_TOKEN`.

What was asked for is printed to stdout: as a table for people, or with `--output json` (`--json`) or `--output yaml`
for programs. Everything else that a command says goes to stderr. The exit code says how it went:

| Code | |
|---|---|
| 0 | it went well |
| 1 | the execution failed, or a test of a pack, or `attune doctor` found a problem |
| 2 | the command was typed wrong |
| 3 | the server, or Attune itself, said no |
| 4 | no server answers |
| 130 | Ctrl-C ended the wait for an execution, which goes on |

`attune psql` ends with the exit code of psql.
"""

_SERVING = "`serve`, `version`, `psql`, `bench`, `check`, `pack new` and `pack test` do not have all of them."
# What they have of the common options is named with their own.
_APART = {"serve", "psql", "check", "pack test"}


def render() -> str:
    """The page."""
    root = typer.main.get_command(app)
    return "\n".join([_INTRODUCTION, *_common(root), *_of(root), ""]).replace("\n\n\n", "\n\n")


def commands() -> list[str]:
    """Every command, as it is typed after `attune`."""
    return [typed for typed, _ in _walk(typer.main.get_command(app))]


def _common(root: Any) -> Iterator[str]:
    options = [one for one in root.commands["status"].params if one.name in _COMMON]
    yield f"Commands that ask a server have these options as well. {_SERVING}\n"
    yield from _table(options)


def _of(root: Any) -> Iterator[str]:
    for typed, command in _walk(root):
        own = [one for one in command.params if one.name not in _COMMON or typed in _APART]
        usage = ["attune", typed, *(_placed(one) for one in own if not _is_option(one))]
        if any(map(_is_option, own)):
            usage.append("[OPTIONS]")
        yield f"\n## attune {typed}\n"
        yield f"`{' '.join(usage)}`\n"
        yield f"{command.help.strip()}\n"
        yield from _table(own)


def _walk(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def _table(parameters: list[Any]) -> Iterator[str]:
    if parameters:
        yield "| | |"
        yield "|---|---|"
    for one in parameters:
        names = [f"`{name}`" for name in (*one.opts, *one.secondary_opts)] if _is_option(one) else [f"`{_placed(one)}`"]
        notes = [one.help.replace("|", "\\|")]
        if one.required and _is_option(one):
            notes.append("Required.")
        if getattr(one, "multiple", False):
            notes.append("May be given more than once.")
        if _is_option(one) and one.default and not isinstance(one.default, bool):
            notes.append(f"Default: {one.default}.")
        yield f"| {', '.join(names)} | {' '.join(notes)} |"


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _placed(parameter: Any) -> str:
    return str(parameter.name).upper()


if __name__ == "__main__":
    PATH.write_text(render())

"""What all commands that talk to a server have in common: where it is, and how their answer looks."""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from attune.cli.client import Client, Target
from attune.cli.talk import CommandError, Exit, say
from attune.cli.times import local


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Context:
    """The server to ask, and the format to answer in. `yes`: ask nobody whether they are sure."""

    client: Client
    format: Format
    yes: bool

    def rows(self, items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Show a list: as a table of some columns, or as data with everything in it."""
        if self.format is not Format.TABLE:
            self._data(list(items))
            return
        table = [[_cell(_at(item, column)) for column in columns] for item in items]
        print_table([column.replace("_", " ").replace(".", " ") for column in columns], table)

    def one(self, item: Mapping[str, Any]) -> None:
        """Show an object: a line for each field, or as data."""
        if self.format is not Format.TABLE:
            self._data(item)
            return
        width = max(map(len, item), default=0)
        for name, value in item.items():
            text = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else _cell(value)
            print(f"{name.ljust(width)}  {text.replace(chr(10), chr(10) + ' ' * (width + 2))}")  # noqa: T201 - data

    def done(self, message: str, item: Mapping[str, Any]) -> None:
        """Tell a person what was done; give a program the data that says so."""
        if self.format is Format.TABLE:
            say(message)
        else:
            self._data(item)

    def confirm(self, question: str) -> None:
        """Go on only if the person is sure."""
        if self.yes:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Say so with --yes.", Exit.USAGE)
        if not typer.confirm(question, err=True):
            raise CommandError("Nothing was done.", Exit.REFUSED)

    def _data(self, value: Any) -> None:
        if self.format is Format.JSON:
            print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - data
            return
        import yaml

        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")  # noqa: T201 - data


IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="A name for this request: sent again within 24 hours, it is not carried out again.",
        show_default=False,
    ),
]

_COMMON = {
    "server": (
        str | None,
        typer.Option(help="The URL of the server; without, the one of the data directory.", show_default=False),
        None,
    ),
    "data_dir": (
        Path | None,
        typer.Option(help="The data directory of the server on this machine.", show_default=False),
        None,
    ),
    "output": (Format, typer.Option("--output", "-o", help="How the answer looks."), Format.TABLE),
    "as_json": (bool, typer.Option("--json", help="The same as --output json."), False),
    "yes": (bool, typer.Option("--yes", "-y", help="Do not ask whether I am sure."), False),
}


def command(
    app: typer.Typer, name: str | None = None, *, text: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command with the common options; it gets a Context and its own. `text` is what its help
    says, instead of its docstring."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[1:]
        common = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
            )
            for option, (kind, declared, default) in _COMMON.items()
        ]

        @wraps(function)
        def call(**values: Any) -> None:
            target = Target(values.pop("server"), values.pop("data_dir"))
            if target.url is not None and target.data is not None:
                raise CommandError("--server and --data-dir name two servers; give one of them.", Exit.USAGE)
            as_json, chosen = values.pop("as_json"), values.pop("output")
            context = Context(Client(target), Format.JSON if as_json else chosen, values.pop("yes"))
            function(context, **values)

        parameters = [*own, *common]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=text)(call)
        return function

    return register


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; without a terminal it is as wide as it has to be."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False).print(table)


def parameters(pairs: Sequence[str], document: str | None) -> dict[str, Any]:
    """Parameters of an action: a JSON object, and `name=value` pairs, whose values are JSON if they can be read as such
    and text otherwise."""
    values = json_argument(document, "the parameters") if document is not None else {}
    if not isinstance(values, dict):
        raise CommandError("The parameters must be a JSON object.", Exit.USAGE)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{pair!r} is no parameter; write name=value.", Exit.USAGE)
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def json_argument(text: str, what: str) -> Any:
    """A JSON value from the command line; `@file` reads it from a file."""
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise CommandError(f"Cannot read {what}: {error}", Exit.USAGE) from error


def _at(item: Mapping[str, Any], column: str) -> Any:
    value: Any = item
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            return local(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)

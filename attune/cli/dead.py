"""`attune bus dead …`: what was given up, to be looked at, tried again, or discarded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from attune.cli.client import Client
from attune.cli.common import Context, Format, command
from attune.cli.talk import CommandError, Exit, say
from attune.cli.times import counted, span

app = typer.Typer(name="dead", help="Dead letters: deliveries that were given up.", no_args_is_help=True)

_PATH = "/api/v1/bus/dead-letters"
_AT_ONCE = 500
_MORE = {"event": "attune why event", "enforcement": "attune enforcement show", "execution": "attune why execution"}

Number = Annotated[int, typer.Argument(min=1, help="The number of the dead letter.")]
Numbers = Annotated[
    list[int] | None, typer.Argument(min=1, help="The numbers of the dead letters.", show_default=False)
]
Queue = Annotated[str | None, typer.Option(help="Only those of this queue.", show_default=False)]
Type = Annotated[str | None, typer.Option("--type", help="Only those with messages of this type.", show_default=False)]
Subject = Annotated[str | None, typer.Option(help="Only those about this, as execution:42.", show_default=False)]
Error = Annotated[str | None, typer.Option(help="Only those with this in their error.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="Only those of the last 30m, 24h, 7d.", show_default=False)]
Before = Annotated[str | None, typer.Option(help="Only those older than 30m, 24h, 7d.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Every dead letter.")]


@command(app, "list")
def list_(
    context: Context,
    queue: Queue = None,
    kind: Type = None,
    subject: Subject = None,
    error: Error = None,
    since: Since = None,
    before: Before = None,
    limit: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 50,
) -> None:
    """List dead letters, the newest first."""
    items = context.client.pages(_PATH, limit, **_filter(queue, kind, subject, error, since, before))
    context.rows(list(items), ["id", "subject", "message_type", "queue", "attempts", "created", "error"])


@command(app, "show")
def show(context: Context, number: Number) -> None:
    """Show a dead letter: its error, its message, the way it came, the state of what it is about, and what to do."""
    letter = context.client.get(f"{_PATH}/{number}")
    context.one(letter)
    if context.format is Format.TABLE:
        print("", *_advice(letter), sep="\n")  # noqa: T201 - data


def _verb(verb: str, text: str) -> None:
    @command(app, verb, text=text)
    def handle(
        context: Context,
        numbers: Numbers = None,
        queue: Queue = None,
        kind: Type = None,
        subject: Subject = None,
        error: Error = None,
        since: Since = None,
        before: Before = None,
        everything: Everything = False,
    ) -> None:
        filters = _filter(queue, kind, subject, error, since, before)
        if [bool(numbers), bool(filters), everything].count(True) != 1:
            raise CommandError("Name dead letters by numbers, by options as --queue, or with --all.", Exit.USAGE)
        _handle(context, verb, sorted(set(numbers or ())), filters)


_verb("replay", "Let dead letters be tried again, from the first attempt on, when what was wrong is mended.")
_verb("discard", "Remove dead letters, and end what they are about: an execution fails, an event matches no rule.")


def _filter(
    queue: str | None, kind: str | None, subject: str | None, error: str | None, since: str | None, before: str | None
) -> dict[str, str]:
    given = {
        "queue": queue,
        "message_type": kind,
        "subject": subject,
        "error": error,
        "since": None if since is None else span(since),
        "before": None if before is None else span(before),
    }
    return {name: value for name, value in given.items() if value is not None}


def _handle(context: Context, verb: str, numbers: Sequence[int], filters: Mapping[str, str]) -> None:
    count = len(numbers) or context.client.count(_PATH, **filters)
    if count:
        context.confirm(f"{verb.capitalize()} {counted(count, 'dead letter')}?")
    letters: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for answer in _answers(context.client, verb, numbers, filters, count):
        letters += answer["letters"]
        failures += answer["failures"]
        if context.format is Format.TABLE:
            for letter in answer["letters"]:
                say(f"dead letter {letter['id']}: {letter['became']}")
    context.done(f"{verb}ed {counted(len(letters), 'dead letter')}", {"letters": letters, "failures": failures})
    if failures:
        raise CommandError("\n".join(failure["error"] for failure in failures), Exit.REFUSED)


def _answers(
    client: Client, verb: str, numbers: Sequence[int], filters: Mapping[str, str], count: int
) -> Iterator[dict[str, Any]]:
    """The answers to as many requests as it takes."""
    chosen: dict[str, Any] = {"filter": filters} if filters else {"all": True}
    after = None
    # No more than were counted: what dies again meanwhile is a new letter.
    for start in range(0, count, _AT_ONCE):
        some = {**chosen, "after": after, "limit": min(count - start, _AT_ONCE)}
        body = {"ids": numbers[start : start + _AT_ONCE]} if numbers else some
        answer = client.send("POST", f"{_PATH}/{verb}", body)["data"]
        yield answer
        after = answer["next_after"]
        if after is None and not numbers:
            return


def _advice(letter: Mapping[str, Any]) -> Iterator[str]:
    """What to do, as commands."""
    kind, _, number = (letter["subject"] or "").partition(":")
    if kind in _MORE:
        yield f"more about it: {_MORE[kind]} {number}"
    if letter["refusal"] is None:
        yield f"when what was wrong is mended: attune bus dead replay {letter['id']}"
    yield f"to give it up: attune bus dead discard {letter['id']}"

"""`attune watch`: events, verdicts and executions, a line each, as they happen."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from attune.cli.client import Client, is_away, segment
from attune.cli.common import Context, Format
from attune.cli.stream import Told, follow
from attune.cli.talk import CommandError, first_line, is_read, say
from attune.cli.times import clock, lasted
from attune.cli.why import actual

_EXPLAINED = 100
_PASSING = 0.3
"""Seconds in which an execution may come to another state: one that is quick is one line."""
_BEGINNING = 2.0
"""Seconds in which another reset tells only that something was under way when watching began."""

Item: TypeAlias = Mapping[str, Any]


def watch(
    context: Context,
    rule: Annotated[str | None, typer.Option(help="Only what the rule with this ref does.", show_default=False)] = None,
    action: Annotated[
        str | None, typer.Option(help="Only what leads to the action with this ref.", show_default=False)
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Only what comes from the trigger with this ref.", show_default=False)
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="Only executions, when they come to this state.", show_default=False)
    ] = None,
) -> None:
    """Show what happens until Ctrl-C: events, what rules make of them, and executions, from now on."""
    for kind, ref in (("rules", rule), ("actions", action), ("triggers", trigger)):
        if ref is not None:
            # A slip would be waited for in vain.
            context.client.get(f"/api/v1/{kind}/{segment(ref)}")
    entity = "event,execution" if status is None else "execution"
    news = News(context.client, rule=rule, action=action)
    try:
        for told in follow(context.client, "/api/v1/stream", entity=entity, ref=trigger, status=status):
            for item in news.of(told):
                _show(context.format, item)
                if not is_read():
                    return
    except KeyboardInterrupt:
        return


class News:
    """What a stream tells, as it is shown: with what rules made of events, which it asks the server for."""

    def __init__(self, client: Client, *, rule: str | None, action: str | None) -> None:
        """`rule` and `action` are refs; with one of them only what has to do with it is shown."""
        self._client = client
        self._rule = rule
        self._action = action
        self._reset_at: float | None = None
        self._passing: dict[int, tuple[float, Item]] = {}

    def of(self, told: Sequence[Told]) -> Iterator[Item]:
        """The news, as objects with their `kind`. Of an execution that came to several states in a moment, the last."""
        verdicts = self._verdicts([one.data["id"] for one in told if _was_examined(one)])
        for one in told:
            shown = {name: value for name, value in one.data.items() if name not in {"entity_type", "entity_id"}}
            if one.name == "reset":
                yield from self._reset(one.data)
            elif one.name == "event_created" and self._is_all:
                yield {"kind": "event", **shown}
            elif _was_examined(one):
                yield from self._examined(one.data, verdicts)
            elif one.name.startswith("execution_") and self._is_wanted(shown):
                yield from self._execution({"kind": "execution", **shown})
        yield from self._settled()

    def _reset(self, data: Item) -> Iterator[Item]:
        now = time.monotonic()
        if self._reset_at is None:
            say("Watching; Ctrl-C ends it.")
        elif now - self._reset_at > _BEGINNING:
            yield {"kind": "reset", **data}
        self._reset_at = now

    def _examined(self, event: Item, verdicts: Mapping[int, Sequence[Item]]) -> Iterator[Item]:
        at = event["examined_at"]
        if self._is_all and event["id"] not in verdicts:
            counts = {name: event[name] for name in ("looked_at", "matched", "failed")}
            yield {"kind": "verdicts", "event": event["id"], "at": at, **counts}
        for verdict in verdicts.get(event["id"], ()):
            if self._is_wanted(verdict):
                yield {"kind": "verdict", "event": event["id"], "at": at, **verdict}

    def _execution(self, execution: Item) -> Iterator[Item]:
        self._passing.pop(execution["id"], None)
        if execution["finished_at"] is not None:
            yield execution
        else:
            self._passing[execution["id"]] = time.monotonic() + _PASSING, execution

    def _settled(self) -> Iterator[Item]:
        """Executions that have stayed in their states for a moment."""
        now = time.monotonic()
        for number in [number for number, (due, _) in self._passing.items() if due <= now]:
            yield self._passing.pop(number)[1]

    def _verdicts(self, events: Sequence[int]) -> dict[int, Sequence[Item]]:
        """What rules made of events: of the first of them only, where all are shown and counts do as well. Nothing of
        those that a server that is away was asked about."""
        if self._is_all:
            events = events[:_EXPLAINED]
        verdicts: dict[int, Sequence[Item]] = {}
        try:
            for start in range(0, len(events), _EXPLAINED):
                asked = ",".join(map(str, events[start : start + _EXPLAINED]))
                answer = self._client.get("/api/v1/verdicts", event=asked)
                verdicts |= {one["event"]: one["rules"] for one in answer["verdicts"]}
        except CommandError as error:
            if not is_away(error):
                raise
        return verdicts

    @property
    def _is_all(self) -> bool:
        return self._rule is self._action is None

    def _is_wanted(self, item: Item) -> bool:
        return self._rule in {None, item["rule_ref"]} and self._action in {None, item["action_ref"]}


def _was_examined(one: Told) -> bool:
    """Whether rules were asked about an event."""
    return one.name == "event_examined" and one.data["looked_at"] > 0


def _show(form: Format, item: Item) -> None:
    if form is Format.TABLE:
        text = line(item)
    elif form is Format.JSON:
        text = json.dumps(item, ensure_ascii=False)
    else:
        import yaml

        text = "---\n" + yaml.safe_dump(dict(item), sort_keys=False, allow_unicode=True).rstrip()
    print(text, flush=True)  # noqa: T201 - data


def line(item: Item) -> str:
    """A line for people."""
    match item["kind"]:
        case "event":
            aim = f" for {item['rule_ref']}" if item["rule_ref"] else ""
            return f"{clock(item['created'])}  event {item['id']}  {item['trigger_ref']}{aim}"
        case "verdict":
            return f"{clock(item['at'])}  event {item['event']}  {item['rule_ref']} {_verdict(item)}"
        case "verdicts":
            counts = f"{item['matched']} of {item['looked_at']} rules matched"
            return f"{clock(item['at'])}  event {item['event']}  {counts}   (attune why event {item['event']})"
        case "execution":
            return f"{clock(_moment(item))}  execution {item['id']}  {item['action_ref']} {_state(item)}"
        case _:
            return f"{item['reason']} What happened meanwhile: attune event list, attune execution list"


def _verdict(item: Item) -> str:
    match item["decision"]:
        case "matched":
            return f"matched, and nothing is run: {first_line(item['error'])}" if item["error"] else "matched"
        case "not_matched":
            return f"did not match at {item['clause']}{actual(item)}"
        case _:
            return f"could not be evaluated: {item['error']}"


def _moment(item: Item) -> str:
    return str(item["finished_at"] or item["started_at"] or item["created"])


def _state(item: Item) -> str:
    of_rule = f" for {item['rule_ref']}" if item["rule_ref"] else ""
    if not item["finished_at"]:
        return f"{item['status']}{of_rule}"
    after = f" after {lasted(item['started_at'], item['finished_at'])}" if item["started_at"] else ""
    error = f": {first_line(item['error'])}" if item["error"] else ""
    return f"{item['status']}{after}{of_rule}{error}"

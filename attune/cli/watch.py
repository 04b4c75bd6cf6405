"""`attune watch`: events, verdicts and executions, a line each, as they happen."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from attune.cli.client import Client, is_away
from attune.cli.common import Context, Format
from attune.cli.talk import CommandError, first_line, is_read, say
from attune.cli.times import clock, lasted
from attune.cli.why import actual

_PATH = "/api/v1/watch"
_WAIT = 25
_AGAIN = 1.0
_ASKED = 500

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
    filters = {"rule": rule, "action": action, "trigger": trigger, "status": status}
    news = News(events_alone=rule is None and action is None, status=status)
    try:
        for answer in _answers(context.client, news, filters):
            for item in news.of(answer):
                _show(context.format, item)
                if not is_read():
                    return
    except KeyboardInterrupt:
        return


class News:
    """What is new in answers of the server, each thing once. `events_alone`: also events that nothing came of;
    `status`: only executions, in this state."""

    def __init__(self, *, events_alone: bool, status: str | None) -> None:
        self._events_alone = events_alone
        self._status = status
        self._matched: dict[int, bool] = {}
        self._states: dict[int, str] = {}
        self._began = False

    @property
    def pending_events(self) -> Sequence[int]:
        """The newest events whose verdicts are not known."""
        return sorted(event for event, is_matched in self._matched.items() if not is_matched)[-_ASKED:]

    @property
    def pending_executions(self) -> Sequence[int]:
        """The newest executions that have not ended."""
        return sorted(execution for execution, status in self._states.items() if status)[-_ASKED:]

    def of(self, answer: Item) -> Iterator[Item]:
        """The news, as objects with their `kind`."""
        for event in answer["events"]:
            yield from self._event(event)
        for execution in answer["executions"]:
            yield from self._execution(execution)
        self._began = True
        if answer["cut"]:
            yield {"kind": "cut"}
        self._forget(answer["settled"])

    def _event(self, event: Item) -> Iterator[Item]:
        number, matched = event["id"], event["matched"]
        if number not in self._matched:
            self._matched[number] = False
            if self._events_alone:
                yield {"kind": "event", **event}
        if matched is None or self._matched[number]:
            return
        self._matched[number] = True
        if matched["rules"] is None:
            yield {"kind": "verdicts", "event": number, **matched}
        for verdict in matched["rules"] or ():
            yield {"kind": "verdict", "event": number, "at": matched["at"], **verdict}

    def _execution(self, execution: Item) -> Iterator[Item]:
        number, status = execution["id"], execution["status"]
        # What has ended needs no state any more, but is not to be shown again.
        state = "" if execution["finished_at"] else status
        if self._states.get(number) == state:
            return
        self._states[number] = state
        if self._began and self._status in {None, status}:
            yield {"kind": "execution", **execution}

    def _forget(self, settled: Mapping[str, int]) -> None:
        """What is settled and done will not come again."""
        for event in [one for one, is_matched in self._matched.items() if is_matched and one <= settled["events"]]:
            del self._matched[event]
        for execution in [one for one, state in self._states.items() if not state and one <= settled["executions"]]:
            del self._states[execution]


def _answers(client: Client, news: News, filters: Mapping[str, str | None]) -> Iterator[Item]:
    """The answers of the server, also of one that is started again meanwhile."""
    answer = client.get(_PATH, **filters)
    say("Watching; Ctrl-C ends it.")
    is_told = False
    while True:
        yield answer
        try:
            asked = {"events": _joined(news.pending_events), "executions": _joined(news.pending_executions)}
            answer = client.get(_PATH, cursor=answer["cursor"], wait=_WAIT, **asked, **filters)
        except CommandError as error:
            if not is_away(error):
                raise
            if not is_told:
                say(f"{error.message}\nTrying again; what happens meanwhile is shown then.")
            is_told = True
            time.sleep(_AGAIN)
            answer = {**answer, "events": [], "executions": [], "cut": False}
        else:
            is_told = False


def _joined(ids: Sequence[int]) -> str | None:
    return ",".join(map(str, ids)) or None


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
            return "more happened at once than is shown here: see attune event list, attune execution list"


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

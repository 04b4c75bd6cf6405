"""How the server does, for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from attune.cli.talk import first_line
from attune.cli.times import counted, duration, local

Found: TypeAlias = Mapping[str, Any]


def status_lines(found: Found) -> Iterator[str]:
    """What `attune status` prints."""
    versions = found["versions"]
    yield f"address     {found['url']}{' (demo)' if found['demo'] else ''}"
    yield f"data        {found['data']}"
    yield f"database    {found['database']}"
    yield f"versions    Attune {versions['attune']}, Python {versions['python']}, PostgreSQL {versions['postgresql']}"
    yield f"schema      {versions['migration']}"
    yield f"running     since {local(found['started_at'])}, {duration(found['uptime_seconds'])}; process {found['pid']}"
    if found["storage"]["free"] is not None:
        yield f"disk        {found['storage']['free'] / 1_000_000:,.0f} MB are free"
    if found["anonymous"] != "off":
        yield "anonymous   everybody on this machine may read"
    closed = [one["detail"] for one in found["ingress_closed"]]
    yield from _section("nothing is taken from outside:" if closed else "", closed)
    yield from _section(f"executions that run: {found['running_executions']}", map(_running, found["running"]))
    yield from _section(f"waiting deliveries: {found['waiting_deliveries']}", map(_queue, found["queues"]))
    if found["open_inquiries"]:
        yield from _section(f"questions without an answer: {found['open_inquiries']}", ["attune inquiry list --open"])
    if found["dead_letters"]:
        yield from _section(f"dead letters: {found['dead_letters']}", ["attune bus dead list"])
    yield from _section("failed in the last day:" if found["failing"] else "", _failing(found["failing"]))
    yield from _section(f"timers: {found['waiting_timers']}", map(_timer, found["timers"]))
    broken = broken_packs(found)
    yield from _section("packs that are not loaded:" if broken else "", broken)


def _section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    if heading:
        yield ""
        yield heading
    yield from (f"  {line}" for line in lines)


def _running(execution: Found) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(execution["started_at"])).total_seconds()
    return (
        f"{execution['id']}  {execution['action_ref']}{_for(execution)} {execution['status']} for {duration(seconds)}"
    )


def _queue(queue: Found) -> str:
    return f"{queue['name']}  {queue['waiting']}, the oldest since {local(queue['oldest'])}"


def _failing(failures: Sequence[Found]) -> Iterator[str]:
    for one in failures:
        what = one["action_ref"] or "nothing was run"
        why = f"attune why execution {one['execution']}" if one["execution"] else f"attune why rule {one['rule_ref']}"
        error = f": {first_line(one['error'])}" if one["error"] else ""
        yield f"{counted(one['count'], 'time')}  {what}{_for(one)}{error}   ({why})"


def _timer(timer: Found) -> str:
    return f"{local(timer['next_fire_at'])}  {timer['rule_ref']}"


def broken_packs(found: Found) -> list[str]:
    """A line for everything that is wrong with a pack that is not loaded, with its place."""
    return [_problem(problem) for pack in found["broken_packs"] for problem in pack["problems"]]


def _problem(problem: Found) -> str:
    place = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
    return f"{place}: {problem['key']}: {problem['detail']}" if problem["key"] else f"{place}: {problem['detail']}"


def _for(one: Found) -> str:
    return f" for {one['rule_ref']}" if one["rule_ref"] else ""

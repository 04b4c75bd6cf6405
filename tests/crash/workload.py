"""What the server is given to do, and what must come of it: each rule twice, for Attune and as Python.

Events are numbered. Nothing else of what the server says is needed to know which enforcements and executions a number
must have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engines import pack

COUNTED, FLOODED, POISONED = "torture.counted", "torture.flooded", "torture.poisoned"
FLOOD_RULES = 40
"""So many enforcements of one event: some such events together are more than a queue holds in memory."""
TIMERS = ("torture.interval", "torture.cron")


@dataclass(frozen=True)
class Work:
    """A rule on an event: for which numbers it matches, as an expression and as a function of the number.

    `leaves`: its action leaves a line for each run in the oracle's file. `ends`: the states that its last attempt may
    end in; it does complete, whatever was killed, when it is tried again after it was abandoned, or waits as a row.
    `may_skip`: it does not overlap.
    """

    ref: str
    trigger: str
    when: str
    matches: Callable[[int], bool]
    action: str
    leaves: bool = False
    ends: frozenset[str] = frozenset({"completed"})
    may_skip: bool = False
    overlap: str = "allow"


def _every(step: int, rest: int) -> tuple[str, Callable[[int], bool]]:
    return f"event.payload.n % {step} == {rest}", lambda n: n % step == rest


_KILLED = frozenset({"completed", "abandoned"})


def _work() -> tuple[Work, ...]:
    # What runs inside the server and not in a process is abandoned with it.
    return (
        Work("torture.all", COUNTED, "true", lambda _: True, "core.noop", ends=_KILLED),
        Work("torture.third", COUNTED, *_every(3, 0), "core.echo", ends=_KILLED),
        Work("torture.process", COUNTED, *_every(10, 0), "torture.append", leaves=True),
        Work("torture.once", COUNTED, *_every(10, 5), "torture.once", leaves=True, ends=_KILLED),
        Work("torture.slow", COUNTED, *_every(20, 7), "torture.slow", leaves=True),
        Work("torture.flaky", COUNTED, *_every(25, 1), "torture.flaky", leaves=True),
        Work("torture.queued", COUNTED, *_every(10, 3), "core.noop", ends=_KILLED, overlap="queue"),
        Work("torture.skipped", COUNTED, *_every(10, 4), "torture.append", leaves=True, may_skip=True, overlap="skip"),
        # Somebody answers the first of these, and nobody the second.
        Work("torture.asked", COUNTED, *_every(10, 6), "core.ask"),
        Work("torture.unanswered", COUNTED, *_every(10, 8), "core.ask", ends=frozenset({"timeout"})),
        *(
            Work(f"torture.flood{number:02}", FLOODED, "true", lambda _: True, "core.noop", ends=_KILLED)
            for number in range(FLOOD_RULES)
        ),
        # Its enforcement cannot be written: the database refuses it.
        Work("torture.poison", POISONED, "true", lambda _: True, "core.noop"),
    )


WORK = _work()

POISON = """
    CREATE FUNCTION attune.poison() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'poison'; END $$;
    CREATE TRIGGER poison BEFORE INSERT ON attune.enforcement FOR EACH ROW
        WHEN (NEW.rule_ref = 'torture.poison') EXECUTE FUNCTION attune.poison();
"""

# Each of these may run twice, and says so.
_AGAIN = "max_retries: 100\nretry_delay: 0\nretry_on: [failed, timeout, abandoned]\n"
_SCRIPTS = {
    "append": (_AGAIN, "{leave}\n"),
    "once": ("", "{leave}\n"),
    "slow": (_AGAIN, "sleep 0.2\n{leave}\n"),
    # The first run of a number fails.
    "flaky": (_AGAIN, "{leave}\nmkdir {marks}/$n 2>/dev/null && exit 1\nexit 0\n"),
}


def torture_pack(folder: Path, file: Path) -> Path:
    """The pack, whose actions leave `number execution` in `file`."""
    marks = folder / "marks"
    marks.mkdir(exist_ok=True)
    leave = f'n=$(tr -dc 0-9)\necho "$n $ATTUNE_EXEC_ID" >> {file}'
    files: dict[str, str] = {
        f"triggers/{ref.partition('.')[2]}.yaml": "label: Numbered\n" for ref in (COUNTED, FLOODED, POISONED)
    }
    for name, (policy, script) in _SCRIPTS.items():
        files[f"actions/{name}.yaml"] = f"entry_point: {name}.sh\n{policy}parameters: {{n: integer}}\n"
        files[f"actions/{name}.sh"] = script.format(leave=leave, marks=marks)
    for work in WORK:
        files[f"rules/{work.ref.partition('.')[2]}.yaml"] = _rule(work)
    every = {"interval": "trigger: core.intervaltimer\ntrigger_params: {interval: 1}\n"}
    every["cron"] = "trigger: core.crontimer\ntrigger_params: {expression: '* * * * * *'}\n"
    for name, schedule in every.items():
        files[f"rules/{name}.yaml"] = f"{schedule}action: core.noop\n"
    return pack(folder / "packs", "torture", files)


def _rule(work: Work) -> str:
    number = 'prompt: "number {{ event.payload.n }}"'
    asked = f"{number}, timeout: 0.3" if "timeout" in work.ends else number
    params = {"core.echo": 'action_params: {message: "number {{ event.payload.n }}"}\n', "core.noop": ""}
    params["core.ask"] = f"action_params: {{{asked}}}\n"
    numbers = params.get(work.action, 'action_params: {n: "{{ event.payload.n }}"}\n')
    return (
        f"trigger: {work.trigger}\nconditions: {{expression: {work.when!r}}}\noverlap: {work.overlap}\n"
        f"action: {work.action}\n{numbers}"
    )


def body(trigger: str, n: int) -> dict[str, Any]:
    """The request for the event with a number."""
    return {"trigger_ref": trigger, "payload": {"n": n}}

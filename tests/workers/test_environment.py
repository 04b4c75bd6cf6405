"""The environment of a child process is exactly what is promised."""

from pathlib import Path

import pytest

from attune.bus.messages import ExecutionDispatched
from attune.workers.environment import Surroundings, environment

ALWAYS = {
    "ATTUNE_BOOT_ID": "boot",
    "ATTUNE_EXEC_ID": "7",
    "ATTUNE_ACTION": "tools.script",
    "ATTUNE_PACK_REF": "tools",
    "ATTUNE_API_URL": "http://here",
    "ATTUNE_ARTIFACTS_DIR": "/a",
    "ATTUNE_RUNTIME_ENVS_DIR": "/e",
    "ATTUNE_PARAMETER_DELIVERY": "stdin",
    "ATTUNE_PARAMETER_FORMAT": "json",
    "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01",
}
OWN = {"PATH": "/bin", "HOME": "/root", "LANG": "C", "TZ": "UTC", "TMPDIR": "/tmp"}

CASES: list[tuple[dict[str, str], tuple[str, ...], dict[str, str]]] = [
    # What Attune has, what is passed, and what a process gets beside what it always gets.
    ({}, (), {}),
    (OWN, (), OWN),
    # Nothing else leaks, however it is called.
    ({**OWN, "SECRET": "s", "LC_ALL": "C", "ATTUNE_DATABASE__URL": "u", "PYTHONPATH": "p"}, (), OWN),
    ({"PATH": "p", "MORE": "m", "EMPTY": ""}, ("MORE", "EMPTY", "UNSET"), {"PATH": "p", "MORE": "m", "EMPTY": ""}),
    # Attune that is itself an action of another Attune does not pass on who it is.
    ({"ATTUNE_EXEC_ID": "1", "ATTUNE_RULE": "outer.rule", "TRACEPARENT": "outer"}, ("TRACEPARENT",), {}),
]  # fmt: skip


@pytest.mark.parametrize(("own", "passed", "gets"), CASES, ids=range(len(CASES)))
def test_a_process_gets_what_is_promised_and_nothing_else(
    own: dict[str, str], passed: tuple[str, ...], gets: dict[str, str]
) -> None:
    surroundings = Surroundings("boot", "http://here", Path("/a"), Path("/e"), passed)

    assert environment(_dispatched(), ALWAYS["TRACEPARENT"], surroundings, own) == ALWAYS | gets


def test_what_a_rule_asked_for_knows_its_rule_and_trigger() -> None:
    surroundings = Surroundings("boot", "http://here", Path("/a"), Path("/e"), ())
    dispatched = _dispatched().model_copy(update={"rule_ref": "tools.rule", "trigger_ref": "core.timer"})

    assert environment(dispatched, ALWAYS["TRACEPARENT"], surroundings, {}) == {
        **ALWAYS,
        "ATTUNE_RULE": "tools.rule",
        "ATTUNE_TRIGGER": "core.timer",
    }


def _dispatched() -> ExecutionDispatched:
    return ExecutionDispatched(
        execution_id=7, action_ref="tools.script", worker_id=1, event_id=None, rule_ref=None, trigger_ref=None
    )

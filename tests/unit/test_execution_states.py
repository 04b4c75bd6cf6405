"""The states of an execution: every pair of a state and a step, and every statement that changes a status."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attune
from attune.base.states import TERMINAL, ExecutionStatus
from attune.database import migrate
from attune.executions.states import TRANSITIONS, Step, after, sources, target

S = ExecutionStatus
SOURCES = Path(attune.__file__).parent

# Where each step leads from each state, in the order of STATES; "-" cannot happen.
STATES = (S.REQUESTED, S.SCHEDULING, S.SCHEDULED, S.RUNNING, S.CANCELING)
TABLE: dict[Step, str] = {
    Step.HOLD: "scheduling - - - -",
    Step.RELEASE: "- requested - - -",
    Step.DISPATCH: "scheduled scheduled - - -",
    Step.REFUSE: "failed failed failed - -",
    Step.GIVE_UP: "failed failed failed - -",
    Step.START: "- - running - -",
    Step.ASK: "running running - - -",
    Step.COMPLETE: "- - - completed completed",
    Step.FAIL: "- - - failed failed",
    Step.TIME_OUT: "- - - timeout timeout",
    Step.ASK_TO_STOP: "- - - canceling -",
    Step.CANCEL: "cancelled cancelled cancelled - cancelled",
    Step.WITHDRAW: "- - - cancelled -",
    Step.ABANDON: "- - - abandoned abandoned",
}


@pytest.mark.parametrize(("status", "step"), [*product(S, Step)], ids=str)
def test_every_step_leads_from_every_state_where_the_table_says(status: ExecutionStatus, step: Step) -> None:
    """T-32, T-91, T-100: a row that has ended does not come back to life, whatever happens to it."""
    listed = dict(zip(STATES, TABLE[step].split(), strict=True)).get(status, "-")

    assert after(status, step) == (None if listed == "-" else ExecutionStatus(listed))


@pytest.mark.parametrize("status", sorted(TERMINAL), ids=str)
def test_nothing_leads_out_of_a_terminal_state(status: ExecutionStatus) -> None:
    assert status.is_terminal
    assert not any(after(status, step) for step in Step)


@pytest.mark.parametrize("step", Step, ids=str)
def test_a_step_leads_to_one_state_from_all_its_sources(step: Step) -> None:
    assert sources(step)
    assert {after(status, step) for status in sources(step)} == {target(step)}
    assert all(after(status, step) is None for status in set(S) - sources(step))


def test_every_state_can_be_reached_and_every_open_one_can_end() -> None:
    assert _reachable(S.REQUESTED) == set(S)
    for status in set(S) - TERMINAL:
        assert _reachable(status) & TERMINAL, f"{status} never ends"


def _reachable(start: ExecutionStatus) -> set[ExecutionStatus]:
    found, pending = {start}, [start]
    while pending:
        for step in Step:
            following = after(pending[-1], step)
            if following is not None and following not in found:
                found.add(following)
                pending.insert(0, following)
        pending.pop()
    return found


@given(st.lists(st.sampled_from(Step), max_size=40))
def test_whatever_happens_an_execution_ends_at_most_once(steps: list[Step]) -> None:
    status, ends = S.REQUESTED, 0
    for step in steps:
        following = after(status, step)
        if following is not None:
            assert not status.is_terminal
            status = following
            ends += status.is_terminal
    assert ends == status.is_terminal


def test_the_states_are_those_of_the_database() -> None:
    """One spelling everywhere (T-22): the enumeration, and the check of the column."""
    migration = (migrate.directory() / "0004_pipeline.sql").read_text()
    table = migration.partition("CREATE TABLE attune.execution (")[2]
    checked = re.search(r"status\s+text NOT NULL CHECK \(status IN \(([^)]*)\)\)", table)

    assert checked is not None
    assert set(re.findall(r"'(\w+)'", checked[1])) == set(S)


def test_every_statement_that_changes_a_status_says_from_which() -> None:
    """Invariant I6: compare-and-set, so that of two who race one wins and the other notices."""
    updates = [statement for path in SOURCES.rglob("*.py") for statement in _status_updates(path)]

    assert len(updates) == len(
        ["resolve an enforcement", "dispatch", "start", "ask", "finish", "hold", "release", "ask to stop"]
    ), "a statement is new: does it compare before it sets?"
    for statement in updates:
        condition = statement.partition("WHERE")[2].partition("RETURNING")[0]
        assert re.search(r"\bstatus = ", condition), statement


def test_statuses_are_written_in_one_place_each() -> None:
    writing = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if [*_status_updates(path)]}

    assert writing == {"executions/queries.py", "executions/enforcement_queries.py"}


def _status_updates(path: Path) -> Iterator[str]:
    """The statements in a file that set the status of an execution or an enforcement."""
    for found in re.finditer(r'UPDATE attune\.(?:execution|enforcement)\b[^"]*', path.read_text()):
        if re.search(r"\bstatus = ", found[0].partition("WHERE")[0]):
            yield found[0]


def test_the_table_has_no_other_steps() -> None:
    assert {step for _, step in TRANSITIONS} == set(Step) == set(TABLE)

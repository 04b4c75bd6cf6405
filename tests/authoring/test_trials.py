"""Tests of packs: an event, and what a rule is expected to make of it."""

from pathlib import Path

import pytest

from attune.authoring.trials import run_tests
from attune.base.errors import BadInput
from tests.authoring.parts import RULE, shop

RULES = f"""{RULE.replace("{amount: ", "{note: 'for {{ event.payload.item }}', amount: ")}
conditions:
- {{field: item, operator: equals, value: tea}}
- {{any: [{{field: amount, operator: greater_than, value: 5}}, {{expression: "event.payload.buyer.name == 'Ada'"}}]}}
"""
TEA = "payload: {item: tea, amount: 7}"


def differences(folder: Path, case: str) -> list[tuple[str, str, str]]:
    """What a case of the rule `thank` shows to be different from what it expects."""
    directory = shop(folder, rules__thank=RULES, tests__thank=f"rule: thank\ncases:\n- name: it\n  {case}\n")
    (trial,) = run_tests(directory)
    assert trial.where == f"{directory}/tests/thank.yaml:3"
    return [(one.what, one.expected, one.actual) for one in trial.differences]


# A case, and what is different.
CASES: list[tuple[str, list[tuple[str, str, str]]]] = [
    (TEA, []),
    (f"{TEA}\n  action: pay", []),
    (f"{TEA}\n  action: shop.pay\n  trigger: sold", []),
    (f"{TEA}\n  action: core.echo", [("action", "core.echo", "shop.pay")]),
    # The action is called with its defaults; a case may leave them out.
    (f"{TEA}\n  parameters: {{amount: 7, note: for tea}}", []),
    (f"{TEA}\n  parameters: {{amount: 7}}", [("parameters.note", '"thanks"', '"for tea"')]),
    (f"{TEA}\n  parameters: {{amount: '7', note: for tea}}", [("parameters.amount", '"7"', "7")]),
    (
        f"{TEA}\n  parameters: {{amuont: 7, note: for tea}}",
        [("parameters.amount", "nothing", "7"), ("parameters.amuont", "7", "nothing")],
    ),
    # It does not match, at that clause.
    (f"{TEA}\n  matches: false", [("matches", "no", "yes")]),
    ("payload: {item: coffee}", [("matches", "yes", "no")]),
    ("payload: {item: coffee}\n  matches: false", []),
    ("payload: {item: coffee}\n  matches: false\n  clause: item equals", []),
    (
        "payload: {item: coffee, amount: 1}\n  matches: false\n  clause: amount",
        [("clause", "amount", 'item equals "tea"')],
    ),
    ("payload: {item: tea, amount: 1}\n  matches: false\n  clause: amount greater_than 5", []),
    ("payload: {item: tea, amount: 1}\n  matches: false\n  clause: buyer.name ==", []),
    # Another trigger's event is not for the rule.
    ("trigger: core.crontimer\n  matches: false", []),
    ("trigger: core.crontimer", [("matches", "yes", "no: it is for shop.sold")]),
    # What the trigger would refuse, or the action.
    ("payload: {item: 5}\n  matches: false", [("payload.item", "what shop.sold gives", 'it is not of type "string"')]),
    (
        "payload: {item: tea, buyer: {name: Ada}}",
        [("parameters.amount", "what shop.pay takes", 'it is not of type "number"')],
    ),
    ("payload: [tea]\n  matches: false", [("payload", "a map, as shop.sold says", '["tea"]')]),
    # As `attune event show` prints it.
    (f"event: {{id: 5, trigger_ref: shop.sold, {TEA}, correlation_id: x}}", []),
]  # fmt: skip


@pytest.mark.parametrize(("case", "different"), CASES, ids=range(len(CASES)))
def test_a_case_shows_what_differs_from_what_it_expects(
    tmp_path: Path, case: str, different: list[tuple[str, str, str]]
) -> None:
    assert differences(tmp_path, case) == different


def test_a_condition_that_cannot_be_decided_fails_its_case(tmp_path: Path) -> None:
    case = "payload: {item: tea, amount: many}\n  matches: false"
    assert ("matches", "no", "an error: the conditions cannot be decided") in differences(tmp_path, case)


def test_config_and_time_can_be_given(tmp_path: Path) -> None:
    rule = RULE.replace(
        '{amount: "{{ event.payload.amount }}"}',
        '{amount: "{{ pack.config.rate }}", note: "{{ system.timestamp }} {{ event.created }} {{ event.id }}"}',
    )
    cases = """
rule: shop.thank
cases:
- name: as the pack has it
  event: {id: 4, created: "2026-03-01T13:00:00+01:00"}
  now: "2026-04-01T00:00:00Z"
  parameters: {amount: 2, note: "2026-04-01T00:00:00Z 2026-03-01T12:00:00Z 4"}
- name: as the case has it
  config: {rate: 3}
  now: "2026-04-01T00:00:00Z"
  parameters: {amount: 3, note: "2026-04-01T00:00:00Z 2026-04-01T00:00:00Z 1"}
"""
    directory = shop(tmp_path, rules__thank=rule, tests__thank=cases)
    (directory / "pack.yaml").write_text("ref: shop\nlabel: Shop\nversion: 1.0.0\nconfig: {rate: 2}\n")
    assert [trial.differences for trial in run_tests(directory)] == [(), ()]


def test_a_rule_that_is_switched_off_is_tried_as_well(tmp_path: Path) -> None:
    cases = "rule: thank\ncases:\n- name: it\n  payload: {amount: 1}\n"
    (trial,) = run_tests(shop(tmp_path, rules__thank=f"{RULE}enabled: false\n", tests__thank=cases))
    assert trial.differences == ()


# A file of tests, and how what is said about it begins.
WRONG: list[tuple[str, str]] = [
    ("cases: []", "tests/thank.yaml:1: cases: list should have at least 1 item"),
    ("rule: thank\ncases:\n- nmae: it\n  name: it", "tests/thank.yaml:3: cases.0.nmae: is unknown"),
    ("rule: thnak\ncases:\n- name: it", "tests/thank.yaml:1: rule: there is no rule shop.thnak; did you mean 'shop.th"),
    ("cases:\n- name: it", "tests/thank.yaml:2: cases.0.name: needs a rule, here or at the top of the file"),
    ("rule: thank\ncases:\n- name: it\n  clause: x", "tests/thank.yaml:4: cases.0.clause: is for a rule that does "),
    ("rule: thank\ncases:\n- name: it\n  matches: false\n  action: pay", "tests/thank.yaml:5: cases.0.action: is for "),
    ("rule: thank\ncases:\n- name: it\n  payload: {}\n  event: {}", "tests/thank.yaml:5: cases.0.event: says trigger"),
    ("rule: thank\ncases:\n- name: it\n  now: '2026-03-01T00:00:00'", "tests/thank.yaml:4: cases.0.now: has no offset"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_a_file_of_tests_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    directory = shop(tmp_path, tests__thank=text)
    with pytest.raises(BadInput) as caught:
        run_tests(directory)
    found = [str(one).replace(f"{directory}/", "") for one in caught.value.problems]
    assert [one[: len(problem)] for one in found] == [problem]

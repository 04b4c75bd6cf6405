"""`attune check`: what is wrong with a pack, before a server sees it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from attune.authoring.check import check
from attune.authoring.library import find_packs
from attune.base.errors import NotFound
from tests.authoring.parts import ACTION, RULE, shop
from tests.support.engines import BUNDLED, pack

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def wrong(directory: Path, now: datetime = NOW) -> list[str]:
    """What is said about a pack, with paths below its folder."""
    (report,) = check([directory], now)
    return [str(problem).replace(f"{directory}/", "") for problem in report.problems]


def timer(kind: str, params: str, more: str = "") -> str:
    """A rule on a timer."""
    rule = f"ref: shop.thank\nlabel: Thank\ntrigger_ref: core.{kind}\naction_ref: core.noop\n"
    return f"{rule}trigger_params: {params}\n{more}"


def params(text: str) -> str:
    """A rule with these parameters for its action."""
    return RULE.replace('{amount: "{{ event.payload.amount }}"}', text)


def conditions(text: str) -> str:
    """A rule with these conditions."""
    return f"{RULE}conditions: {text}\n"


def clause(text: str) -> str:
    """A clause, from its field, its operator and its value."""
    field, operator, value = text.split(" ", 2)
    return f"{{field: {field}, operator: {operator}, value: {value}}}"


def clauses(*texts: str) -> str:
    """A rule with these clauses."""
    return conditions(f"[{', '.join(map(clause, texts))}]")


def any_of(*texts: str) -> str:
    """A rule with one of these clauses."""
    return conditions(f"{{any: [{', '.join(map(clause, texts))}]}}")


def expression(text: str) -> str:
    """A rule with this condition."""
    return conditions(f'{{expression: "{text}"}}')


def test_a_pack_that_is_right_has_no_problems(tmp_path: Path) -> None:
    assert wrong(shop(tmp_path)) == []


@pytest.mark.parametrize("name", ["core", "hello"])
def test_the_bundled_packs_are_right(name: str) -> None:
    """T-61: a definition that was shipped could not be loaded."""
    assert wrong(BUNDLED / name) == []


NEVER = "the rule can never fire: "
SOLD = "event.payload of shop.sold has no"

# A rule, and how what is said about it begins, after the name of its file; nothing if it is right.
RULES: list[tuple[str, str]] = [
    # What is not there.
    (RULE.replace("shop.sold", "shop.sole"), "4: trigger_ref: there is no trigger shop.sole; did you mean 'shop.sold'"),
    (RULE.replace("shop.pay", "core.ehco"), "5: action_ref: there is no action core.ehco; did you mean 'core.echo'?"),
    (RULE.replace("shop.pay", "x.y"), "5: action_ref: there is no action x.y; known are core.ask, core.echo, "),
    # Parameters of the action.
    (params("{}"), "6: action_params.amount: is required"),
    (params("{amount: 3, noet: a}"), "6: action_params.noet: is unknown; did you mean 'note'?"),
    (params("{amount: many}"), '6: action_params.amount: it is not of type "number"'),
    (params("{amount: '{{ event.payload.amount'}"), "6: action_params.amount: Line 1"),
    (params("{amount: '{{ payload.amount }}'}"), "6: action_params.amount: the name 'payload' is unknown"),
    # Fields that no event of the trigger has.
    (params("{amount: '{{ event.payload.amuont }}'}"), f"6: action_params.amount: {SOLD} 'amuont'; did you mean 'amou"),
    (params("{amount: '{{ event.playload.item }}'}"), "6: action_params.amount: event has no 'playload'; did you mean"),
    (params("{amount: '{{ system.rule.rfe }}'}"), "6: action_params.amount: system.rule has no 'rfe'; did you mean 'r"),
    (params("{amount: '{{ pack.config.x }}'}"), "6: action_params.amount: pack.config has no 'x'; it has nothing"),
    (clauses("itme equals tea"), f"7: conditions.0.field: {SOLD} 'itme'; did you mean 'item'?"),
    (clauses("buyer.nmae equals Ada"), "7: conditions.0.field: event.payload.buyer of shop.sold has no 'nmae'; did yo"),
    (clauses("item.name equals a"), "7: conditions.0.field: event.payload.item has no 'name': shop.sold says that it"),
    (clauses("tags.0.di equals 1"), "7: conditions.0.field: event.payload.tags.0 of shop.sold has no 'di'; it has id"),
    (any_of("item equals a", "b equals a"), f"7: conditions.any.1.field: {SOLD} 'b'"),
    (conditions(f"[{{all: [{clause('b equals 1')}]}}]"), f"7: conditions.0.all.0.field: {SOLD} 'b'"),
    (expression("event['payload'].itme == lower(event.payload.item)"), f"7: conditions.expression: {SOLD} 'itme'"),
    (expression("event.payload.tags[event.payload.on].id == 1"), f"7: conditions.expression: {SOLD} 'on'"),
    (expression("event.payload.rest.anything == 1 and event.id > 0"), ""),
    (clauses("tags.0.id equals 1", "buyer.name exists true"), ""),
    # Conditions that do not parse.
    (expression("event.payload.item = 1"), "7: conditions.expression: Line 1, column 20"),
    (clauses("item equal 1"), "7: conditions.0.operator: 'equal' is unknown; did you mean 'equals'?"),
    # Conditions that never hold.
    (clauses("item in []"), f"7: conditions.0.value: {NEVER}item in []: no value is in an empty list"),
    (clauses("item equals a", "item equals b"), f'7: conditions.1: {NEVER}item equals "a" and item equals "b" can nev'),
    (clauses("item equals a", "amount equals 1", "item not_equals a"), f"7: conditions.2: {NEVER}"),
    (clauses("item in [a, b]", "item matches ^c"), f"7: conditions.1: {NEVER}"),
    (clauses("item in [a, b]", "item not_equals a", "item not_equals b"), f"7: conditions.0: {NEVER}no value of item"),
    (clauses("item exists false", "item not_equals a"), f"7: conditions.1: {NEVER}"),
    (clauses("item exists false", "item exists true"), f"7: conditions.1: {NEVER}"),
    (clauses("amount greater_than 5", "amount less_than_or_equal 5"), f"7: conditions.1: {NEVER}"),
    (clauses("amount greater_than 5", "amount less_than b"), f"7: conditions.1: {NEVER}"),
    (any_of("item in []", "amount in []"), f"7: conditions.any.0.value: {NEVER}"),
    (conditions(f"{{all: [{clause('item in [1]')}, [{clause('item in [2]')}]]}}"), f"7: conditions.all.1.0: {NEVER}"),
    (conditions("[{any: [{expression: 1 > 2}]}]"), f"7: conditions.0.any.0.expression: {NEVER}is never true, whatever"),
    # Conditions that may.
    (any_of("item in []", "item equals a"), ""),
    (any_of("item equals a", "item equals b"), ""),
    (clauses("item in [a, b]", "item not_equals a"), ""),
    (clauses("amount greater_than_or_equal 5", "amount less_than_or_equal 5"), ""),
    (clauses("amount equals 5", "amount greater_than 4"), ""),
    (expression("1 < 2"), ""),
    # Schedules.
    (timer("crontimer", "{expression: 0 0 8 * *}"), ""),
    (timer("crontimer", "{expression: 0 0 25 * * *}"), "5: trigger_params.expression: the hour field cannot be '25'"),
    (timer("crontimer", "{expression: 0 0 0 30 2 *}"), "5: trigger_params.expression: '0 0 0 30 2 *' never fires"),
    (timer("crontimer", "{expression: '@daily', timezone: Europe/Berlim}"), "5: trigger_params.timezone: 'Europe/Berl"),
    (timer("crontimer", "{}"), "5: trigger_params.expression: is required"),
    (timer("crontimer", "{expresion: a, expression: '@daily'}"), "5: trigger_params.expresion: is unknown; did you me"),
    (timer("datetimetimer", "{fire_at: '2026-03-01T11:59:59Z'}"), f"5: trigger_params: {NEVER}its schedule has no mom"),
    (timer("datetimetimer", "{fire_at: '2026-03-01T12:00:01Z'}"), ""),
    # Whoever switched it off knows.
    (timer("datetimetimer", "{fire_at: '2026-03-01T11:59:59Z'}", "enabled: false\n"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "problem"), RULES, ids=range(len(RULES)))
def test_what_is_wrong_with_a_rule_is_told_with_line_and_key(tmp_path: Path, rule: str, problem: str) -> None:
    found = wrong(shop(tmp_path, rules__thank=rule))
    assert len(found) == bool(problem), found
    assert all(one.startswith(f"rules/thank.yaml:{problem}") for one in found), found


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    rule = f"{params('{amuont: 3}')}conditions:\n- {{field: itme, operator: exist, value: true}}\n"
    shop(tmp_path, rules__thank=rule, rules__other=RULE.replace("thank", "other").replace("shop.sold", "shop.sole"))
    assert [one.partition(": ")[2].partition(":")[0] for one in wrong(tmp_path / "shop")] == [
        "trigger_ref",
        "action_params.amuont",
        "action_params.amount",
        "conditions.0.operator",
    ]


# A script, the runner, and how what is said begins.
SCRIPTS: list[tuple[str, str, str | None]] = [
    ("import nothing_that_is_there", "python", None),
    ("def x(:", "python", "actions/pay.py:1: is not Python: invalid syntax"),
    ("x = 1\nif x:\n", "python", "actions/pay.py:2: is not Python: expected an indented block"),
    ("#!/usr/bin/env python3\n", "python", None),
    ("#!/usr/bin/env python3\n", "shell", "actions/pay.py:1: is written for python, but its action has runner_type sh"),
    ("#!/bin/bash\n", "shell", None),
    ("#!/bin/bash -e\n", "python", "actions/pay.py:1: is written for shell, but its action has runner_type python"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "runner", "problem"), SCRIPTS)
def test_a_script_that_cannot_run_is_told(tmp_path: Path, script: str, runner: str, problem: str | None) -> None:
    directory = shop(tmp_path, actions__pay=ACTION.replace("python", runner))
    (directory / "actions" / "pay.py").write_text(script)
    assert [one[: len(problem or "")] for one in wrong(directory)] == ([problem] if problem else [])


def test_a_script_that_is_missing_is_told(tmp_path: Path) -> None:
    directory = shop(tmp_path)
    (directory / "actions" / "pay.py").unlink()
    (found,) = wrong(directory)
    assert found.startswith("actions/pay.yaml:4: entry_point: there is no file ")


def test_a_rule_may_name_what_packs_beside_it_have(tmp_path: Path) -> None:
    directory = shop(tmp_path, rules__thank=RULE.replace("shop.pay", "till.pay"))
    till = pack(tmp_path, "till", {"actions/pay.yaml": ACTION.replace("shop", "till"), "actions/pay.py": ""})
    assert wrong(directory) == []
    (till / "actions" / "pay.py").unlink()
    assert wrong(directory) == [
        f"rules/thank.yaml:5: action_ref: there is no action till.pay, because the pack in {till} is broken"
    ]


def test_packs_are_found_from_where_a_person_stands(tmp_path: Path) -> None:
    directory = shop(tmp_path)
    for place in (directory, tmp_path, directory / "rules", directory / "rules" / "thank.yaml"):
        assert find_packs(place) == [directory]
    for place in (tmp_path / "nowhere", tmp_path.parent):
        with pytest.raises(NotFound):
            find_packs(place)

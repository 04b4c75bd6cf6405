"""Rules as files again: what is written reads back as the same rule."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attune.base.json import unstorable
from attune.catalog.export import rule_yaml
from attune.catalog.files import read_rule
from attune.catalog.model import Rule

NOW = datetime(2026, 1, 1, tzinfo=UTC)

words = st.text(max_size=20)
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
).filter(lambda value: not list(unstorable(value)))
objects = st.dictionaries(words, values, max_size=4).filter(lambda value: not list(unstorable(value)))
texts = st.text(min_size=1, max_size=40).filter(lambda value: not list(unstorable(value)))


def made(**fields: Any) -> Rule:
    rule: dict[str, Any] = {
        "id": 1,
        "ref": "shop.thank",
        "label": "Thank",
        "description": None,
        "created": NOW,
        "updated": NOW,
        "pack": 1,
        "pack_ref": "shop",
        "action": 1,
        "action_ref": "core.echo",
        "trigger": 1,
        "trigger_ref": "shop.sold",
        "conditions": [],
        "action_params": {},
        "trigger_params": {},
        "enabled": True,
        "overlap": "allow",
        "is_adhoc": True,
        "owner_identity": None,
    }
    return Rule(**{**rule, **fields})


@given(
    label=texts,
    description=st.none() | texts,
    conditions=values,
    action_params=objects,
    trigger_params=objects,
    enabled=st.booleans(),
    overlap=st.sampled_from(["allow", "skip", "queue"]),
)
def test_what_is_written_reads_back_as_the_same(**fields: Any) -> None:
    read = read_rule(Path("thank.yaml"), None, rule_yaml(made(**fields)).encode()).content
    assert {name: getattr(read, name) for name in fields} == fields
    assert repr(read.action_params) == repr(fields["action_params"])
    assert (read.ref, read.trigger_ref, read.action_ref) == ("shop.thank", "shop.sold", "core.echo")


def test_it_is_written_for_people() -> None:
    rule = made(
        description="Says thanks.\nTwice.",
        conditions=[{"field": "price", "operator": "greater_than", "value": 3}],
        action_params={"message": "It is 12:30, {{ event.payload.name }}", "day": "2026-01-31", "grün": True},
    )
    assert rule_yaml(rule) == (
        "ref: shop.thank\n"
        "label: Thank\n"
        "description: |-\n"
        "  Says thanks.\n"
        "  Twice.\n"
        "enabled: true\n"
        "trigger_ref: shop.sold\n"
        "conditions:\n"
        "- field: price\n"
        "  operator: greater_than\n"
        "  value: 3\n"
        "action_ref: core.echo\n"
        "action_params:\n"
        "  message: It is 12:30, {{ event.payload.name }}\n"
        "  day: '2026-01-31'\n"
        "  grün: true\n"
    )

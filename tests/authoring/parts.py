"""Packs for those who check and try them."""

from pathlib import Path

from tests.support.engines import pack

TRIGGER = """
ref: shop.sold
label: Sold
output:
  item: {type: string}
  amount: {type: number}
  buyer: {type: object, properties: {name: {type: string}}}
  tags: {type: array, items: {type: object, properties: {id: {type: integer}}}}
  rest: {type: object}
"""
ACTION = """
ref: shop.pay
label: Pay
entry_point: pay.py
runner_type: python
parameters:
  amount: {type: number, required: true}
  note: {type: string, default: thanks}
"""
RULE = """
ref: shop.thank
label: Thank
trigger_ref: shop.sold
action_ref: shop.pay
action_params: {amount: "{{ event.payload.amount }}"}
"""


def shop(folder: Path, **files: str) -> Path:
    """A pack that is right, but for `files`: their names with `__` for the slash, without the ending."""
    given = {"triggers__sold": TRIGGER, "actions__pay": ACTION, "rules__thank": RULE, **files}
    return pack(
        folder,
        "shop",
        {"actions/pay.py": "", **{f"{name.replace('__', '/')}.yaml": content for name, content in given.items()}},
    )

"""References: `pack` and `pack.name`."""

import re

_PACK = re.compile(r"[a-z][a-z0-9_-]*\Z")
_COMPONENT = re.compile(r"[a-z][a-z0-9_-]*\.[a-z0-9][a-z0-9_-]*\Z")
MAX_LENGTH = 255

PACK_SHAPE = "lower-case letters, digits, '_' and '-', beginning with a letter"
COMPONENT_SHAPE = f"'pack.name': a pack of {PACK_SHAPE}, and a name of the same that may begin with a digit"


def is_pack_ref(text: str) -> bool:
    """Whether `text` can name a pack."""
    return len(text) <= MAX_LENGTH and _PACK.match(text) is not None


def is_component_ref(text: str) -> bool:
    """Whether `text` can name an action, a trigger or a rule: two parts, joined by one dot."""
    return len(text) <= MAX_LENGTH and _COMPONENT.match(text) is not None


def pack_of(ref: str) -> str:
    """The pack that a component's ref names: `core` for `core.echo`."""
    return ref.partition(".")[0]

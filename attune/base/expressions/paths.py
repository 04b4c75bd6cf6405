"""Which paths an expression names: `event.payload.x` as `("event", "payload", "x")`."""

from collections.abc import Iterator
from typing import TypeAlias

from jinja2 import nodes

Path: TypeAlias = tuple[str | int, ...]


def paths(node: nodes.Node) -> Iterator[Path]:
    """Every path from a name, as far as its keys are constants."""
    keys: list[nodes.Node | str] = []
    root = node
    while isinstance(root, nodes.Getattr | nodes.Getitem):
        keys.append(root.attr if isinstance(root, nodes.Getattr) else root.arg)
        root = root.node
    keys.reverse()
    if isinstance(root, nodes.Name) and root.name != "null":
        yield (root.name, *_constants(keys))
    elif keys:
        yield from paths(root)
    else:
        # The name of a function is no path.
        for child in root.iter_child_nodes(exclude=("node",) if isinstance(root, nodes.Call) else None):
            yield from paths(child)
    for key in keys:
        if isinstance(key, nodes.Node):
            yield from paths(key)


def _constants(keys: list[nodes.Node | str]) -> Iterator[str | int]:
    for key in keys:
        value = key.value if isinstance(key, nodes.Const) else key
        if not isinstance(value, str | int):
            return
        yield value

"""A syntax tree as text again: what a person sees of one clause, or of one operand."""

from collections.abc import Callable
from typing import Any, Final

import orjson
from jinja2 import nodes

SYMBOLS: Final = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "lteq": "<=",
    "gt": ">",
    "gteq": ">=",
    "in": "in",
    "notin": "not in",
}

# How tightly each construct binds, loosest first.
_ANY, _OR, _AND, _NOT, _COMPARE, _SUM, _CONCAT, _PRODUCT, _POWER, _UNARY, _FILTER, _ATOM = range(12)

_BINARY: Final[dict[type[nodes.Node], tuple[str, int]]] = {
    nodes.Or: ("or", _OR),
    nodes.And: ("and", _AND),
    nodes.Add: ("+", _SUM),
    nodes.Sub: ("-", _SUM),
    nodes.Mul: ("*", _PRODUCT),
    nodes.Div: ("/", _PRODUCT),
    nodes.FloorDiv: ("//", _PRODUCT),
    nodes.Mod: ("%", _PRODUCT),
    nodes.Pow: ("**", _POWER),
}


def render(node: nodes.Node) -> str:
    """The text of `node`: equal to what was written but for spacing, quotes and needless parentheses."""
    return _at(node, _ANY)


def _at(node: nodes.Node, level: int) -> str:
    text, own = _rendered(node)
    return text if own >= level else f"({text})"


def _rendered(node: nodes.Node) -> tuple[str, int]:
    """The text of `node` and how tightly it binds."""
    renderer = _RENDERERS.get(type(node))
    return renderer(node) if renderer else ("…", _ATOM)


def _binary(node: nodes.BinExpr) -> tuple[str, int]:
    level = _BINARY[type(node)][1]
    # Left-associative, so that the left spine of a long chain needs no recursion.
    parts = []
    spine: nodes.Node = node
    while isinstance(spine, nodes.BinExpr) and _BINARY[type(spine)][1] == level:
        parts.append(f" {_BINARY[type(spine)][0]} {_at(spine.right, level + 1)}")
        spine = spine.left
    parts.append(_at(spine, level))
    return "".join(reversed(parts)), level


def _path(node: nodes.Node) -> tuple[str, int]:
    # As for chains: a path may have a thousand keys.
    keys = []
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        keys.append(f".{node.attr}" if isinstance(node, nodes.Getattr) else f"[{render(node.arg)}]")
        node = node.node
    return _at(node, _ATOM) + "".join(reversed(keys)), _ATOM


def _compare(node: nodes.Compare) -> tuple[str, int]:
    pairs = "".join(f" {SYMBOLS[pair.op]} {_at(pair.expr, _SUM)}" for pair in node.ops)
    return _at(node.expr, _SUM) + pairs, _COMPARE


def _filter(node: nodes.Filter) -> tuple[str, int]:
    assert node.node is not None
    arguments = f"({_list(node.args)})" if node.args else ""
    return f"{_at(node.node, _FILTER)} | {node.name}{arguments}", _FILTER


def _conditional(node: nodes.CondExpr) -> tuple[str, int]:
    otherwise = f" else {_at(node.expr2, _ANY)}" if node.expr2 is not None else ""
    return f"{_at(node.expr1, _OR)} if {_at(node.test, _OR)}{otherwise}", _ANY


def _object(node: nodes.Dict) -> tuple[str, int]:
    pairs = ", ".join(f"{render(pair.key)}: {render(pair.value)}" for pair in node.items)
    return f"{{{pairs}}}", _ATOM


def _list(items: list[nodes.Expr]) -> str:
    return ", ".join(map(render, items))


def constant(value: object) -> str:
    """A literal as the language writes it."""
    return (
        repr(value) if isinstance(value, float | int) and not isinstance(value, bool) else orjson.dumps(value).decode()
    )


_RENDERERS: Final[dict[type[nodes.Node], Callable[[Any], tuple[str, int]]]] = {
    nodes.Const: lambda node: (constant(node.value), _ATOM),
    nodes.Name: lambda node: (node.name, _ATOM),
    nodes.Getattr: _path,
    nodes.Getitem: _path,
    nodes.Call: lambda node: (f"{_at(node.node, _ATOM)}({_list(node.args)})", _ATOM),
    nodes.Filter: _filter,
    nodes.Test: lambda node: (f"{_at(node.node, _FILTER)} is {node.name}", _FILTER),
    nodes.List: lambda node: (f"[{_list(node.items)}]", _ATOM),
    nodes.Tuple: lambda node: (f"[{_list(node.items)}]", _ATOM),
    nodes.Dict: _object,
    nodes.Concat: lambda node: (" ~ ".join(_at(part, _PRODUCT) for part in node.nodes), _CONCAT),
    nodes.Neg: lambda node: (f"-{_at(node.node, _ATOM)}", _UNARY),
    nodes.Not: lambda node: (f"not {_at(node.node, _NOT)}", _NOT),
    nodes.Compare: _compare,
    nodes.CondExpr: _conditional,
    **dict.fromkeys(_BINARY, _binary),
}

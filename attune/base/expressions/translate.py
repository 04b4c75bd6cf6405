"""The syntax tree of an expression as one that Jinja can compile safely.

Only what is listed here passes. Constants, `and`, `or`, `not` and `x if c else y` stay Jinja's own; everything else
becomes the call of one of our operators, so that no Python operator, attribute or method ever meets a value.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final

from jinja2 import nodes

from attune.base.expressions import patterns
from attune.base.expressions.functions import Function
from attune.base.expressions.library import TESTS
from attune.base.expressions.syntax import TextError
from attune.base.expressions.values import OperationError

# Each level becomes a pair of parentheses in the generated code, and Python takes no more than some 100 to 200.
MAX_DEPTH: Final = 64
# All patterns of one expression together, in RE2 instructions: about 20 ms of compiling.
MAX_PATTERNS: Final = 20_000

_BINARY: Final[dict[type[nodes.Node], str]] = {
    nodes.Add: "add",
    nodes.Sub: "sub",
    nodes.Mul: "mul",
    nodes.Div: "div",
    nodes.FloorDiv: "floordiv",
    nodes.Mod: "mod",
    nodes.Pow: "pow",
}
_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Pos: 'a "+" in front of a value is not part of the language; leave it out',
    nodes.Slice: "[a:b] is not part of the language; write slice(value, a, b)",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One operation of the expression, for the message when it fails."""

    node: nodes.Node
    operands: Sequence[nodes.Node]


class Translator:
    """Translates one expression, and collects what its program needs beside the code."""

    def __init__(self, functions: Mapping[str, Function], filters: Mapping[str, Function]) -> None:
        self.places: list[Place] = []
        self.roots: set[str] = set()
        self.patterns: set[str] = set()
        self._functions = functions
        self._filters = filters
        self._depth = 0
        self._pattern_size = 0
        self._handlers: dict[type[nodes.Node], Callable[[Any], nodes.Expr]] = {
            nodes.Const: self._constant,
            nodes.Name: self._name,
            nodes.Getattr: self._path,
            nodes.Getitem: self._path,
            nodes.Call: self._call,
            nodes.Filter: self._filter,
            nodes.Test: self._test,
            nodes.Compare: self._compare,
            nodes.List: self._array,
            nodes.Tuple: self._array,
            nodes.Dict: self._object,
            nodes.Concat: self._concat,
            nodes.Neg: self._negative,
            nodes.Not: self._not,
            nodes.And: self._and_or,
            nodes.Or: self._and_or,
            nodes.CondExpr: self._conditional,
            **dict.fromkeys(_BINARY, self._binary),
        }

    def expression(self, node: nodes.Node) -> nodes.Expr:
        """`node`, translated. Raises TextError when it holds what the language does not have."""
        handler = self._handlers.get(type(node))
        if handler is None:
            what = _REFUSED.get(type(node), f"{type(node).__name__} is not part of the language")
            raise TextError(what, node.lineno)
        self.enter(node)
        result = handler(node)
        self.leave()
        return result

    def enter(self, node: nodes.Node, levels: int = 1) -> None:
        """Count `levels` of nesting."""
        self._depth += levels
        if self._depth > MAX_DEPTH:
            raise TextError(f"the expression is nested deeper than {MAX_DEPTH} levels", node.lineno)

    def leave(self, levels: int = 1) -> None:
        """Undo `enter`."""
        self._depth -= levels

    def joined(self, node: nodes.And | nodes.Or, translate: Callable[[nodes.Node], nodes.Expr]) -> nodes.Expr:
        """A chain of `and` or `or`, balanced: it means the same, and a long one does not count as deep."""
        parts = chain_of(node)
        levels = len(parts).bit_length()
        self.enter(node, levels)
        result = _balanced(type(node), [translate(part) for part in parts])
        self.leave(levels)
        return result

    def place(self, node: nodes.Node, operands: Sequence[nodes.Node]) -> nodes.Const:
        """The number by which an operator names `node` when it fails."""
        self.places.append(Place(node, operands))
        return nodes.Const(len(self.places) - 1)

    def operands(self, node: nodes.Compare) -> list[nodes.Expr]:
        """What `chain` takes for a comparison: the operands, with the operators between them."""
        result = [self.expression(node.expr)]
        for pair in node.ops:
            result += [nodes.Const(pair.op), self.expression(pair.expr)]
        return result

    def _operation(self, name: str, node: nodes.Node, operands: Sequence[nodes.Node]) -> nodes.Expr:
        return operation(name, self.place(node, operands), *map(self.expression, operands))

    def _constant(self, node: nodes.Const) -> nodes.Expr:
        value = node.value
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise TextError("the number does not fit into 64 bits", node.lineno)
        if isinstance(value, float) and not isfinite(value):
            raise TextError("the number is too large", node.lineno)
        return nodes.Const(value)

    def _name(self, node: nodes.Name) -> nodes.Expr:
        return nodes.Const(None) if node.name == "null" else self._path(node)

    def _path(self, node: nodes.Node) -> nodes.Expr:
        """A name or any other value, and the keys behind it, as one operation."""
        keys: list[nodes.Expr] = []
        while isinstance(node, nodes.Getattr | nodes.Getitem):
            key = nodes.Const(node.attr) if isinstance(node, nodes.Getattr) else self.expression(node.arg)
            keys.append(key)
            node = node.node
        keys.reverse()
        if not isinstance(node, nodes.Name) or node.name == "null":
            return operation("get", self.expression(node), *keys)
        if node.name.startswith("_"):
            raise TextError('names do not begin with "_"', node.lineno)
        self.roots.add(node.name)
        return operation("path", nodes.Const(node.name), *keys)

    def _call(self, node: nodes.Call) -> nodes.Expr:
        if not isinstance(node.node, nodes.Name):
            raise TextError("only functions can be called, by their name; a value has keys but no methods", node.lineno)
        name = node.node.name
        function = self._functions.get(name)
        if function is None:
            hint = f"write value | {name}" if name in self._filters else _meant(name, self._functions)
            raise TextError(f'there is no function "{name}"{hint and f"; {hint}"}', node.node.lineno)
        _check_arguments(name, function, node, node.args)
        if name == "match":
            self._check_pattern(node.args[0])
        return self._operation(f"{name}()", node, node.args)

    def _filter(self, node: nodes.Filter) -> nodes.Expr:
        assert node.node is not None
        function = self._filters.get(node.name)
        if function is None:
            called = node.name in self._functions
            hint = f"write {node.name}(value)" if called else _meant(node.name, self._filters)
            raise TextError(f'there is no filter "{node.name}"{hint and f"; {hint}"}', node.lineno)
        arguments = [node.node, *node.args]
        _check_arguments(node.name, function, node, arguments)
        return self._operation(f"| {node.name}", node, arguments)

    def _test(self, node: nodes.Test) -> nodes.Expr:
        if node.name not in TESTS:
            hint = _meant(node.name, TESTS)
            raise TextError(f'there is no test "{node.name}"{hint and f"; {hint}"}', node.lineno)
        return operation(f"is {node.name}", self.expression(node.node))

    def _check_pattern(self, node: nodes.Node) -> None:
        """Refuse a bad literal pattern here, where the person who wrote it is still looking."""
        if not isinstance(node, nodes.Const) or not isinstance(node.value, str):
            return
        try:
            self._pattern_size += patterns.compiled(node.value).programsize
        except OperationError as error:
            raise TextError(str(error), node.lineno) from error
        if self._pattern_size > MAX_PATTERNS:
            raise TextError("the patterns of this expression are too large", node.lineno)
        self.patterns.add(node.value)

    def _compare(self, node: nodes.Compare) -> nodes.Expr:
        operands = [node.expr, *(pair.expr for pair in node.ops)]
        if len(node.ops) == 1:
            return self._operation(node.ops[0].op, node, operands)
        return operation("chain", self.place(node, operands), *self.operands(node))

    def _array(self, node: nodes.List | nodes.Tuple) -> nodes.Expr:
        return self._operation("array", node, node.items)

    def _object(self, node: nodes.Dict) -> nodes.Expr:
        return self._operation("object", node, [part for pair in node.items for part in (pair.key, pair.value)])

    def _concat(self, node: nodes.Concat) -> nodes.Expr:
        return self._operation("concat", node, node.nodes)

    def _binary(self, node: nodes.BinExpr) -> nodes.Expr:
        return self._operation(_BINARY[type(node)], node, [node.left, node.right])

    def _negative(self, node: nodes.Neg) -> nodes.Expr:
        return self._operation("neg", node, [node.node])

    def _not(self, node: nodes.Not) -> nodes.Expr:
        return nodes.Not(self.expression(node.node))

    def _and_or(self, node: nodes.And | nodes.Or) -> nodes.Expr:
        return self.joined(node, self.expression)

    def _conditional(self, node: nodes.CondExpr) -> nodes.Expr:
        otherwise = operation("missing", nodes.Const(0)) if node.expr2 is None else self.expression(node.expr2)
        return nodes.CondExpr(self.expression(node.test), self.expression(node.expr1), otherwise)


def operation(name: str, first: nodes.Expr, *others: nodes.Expr) -> nodes.Expr:
    """The call of one of our operators."""
    return nodes.Filter(first, name, list(others), [], None, None)


def chain_of(node: nodes.And | nodes.Or) -> list[nodes.Node]:
    """The parts of `a and b and c`, or of `a or b or c`."""
    parts: list[nodes.Node] = []
    spine: nodes.Node = node
    while type(spine) is type(node):
        assert isinstance(spine, nodes.BinExpr)
        parts.append(spine.right)
        spine = spine.left
    return [spine, *reversed(parts)]


def _balanced(join: Callable[[nodes.Expr, nodes.Expr], nodes.Expr], parts: list[nodes.Expr]) -> nodes.Expr:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return join(_balanced(join, parts[:middle]), _balanced(join, parts[middle:]))


def _check_arguments(
    name: str, function: Function, node: nodes.Call | nodes.Filter, arguments: Sequence[nodes.Node]
) -> None:
    if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
        raise TextError(f"{name}: arguments have no names and no stars here; write them in their order", node.lineno)
    problem = function.arity_problem(len(arguments))
    if problem:
        raise TextError(f"{name} {problem}", node.lineno)


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name[:40], list(known), n=1)
    return f'did you mean "{close[0]}"?' if close else ""

"""What each clause of an expression came to.

The expression is compiled a second time with every clause tapped: one evaluation, short-circuiting as ever, notes the
values that it passes. What is not noted was skipped, or is where the evaluation failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from jinja2 import nodes

from attune.base.expressions.language import Language
from attune.base.expressions.run import Run
from attune.base.expressions.source import SYMBOLS, render
from attune.base.expressions.translate import Translator, operation
from attune.base.expressions.values import MISSING, ExpressionError, Missing, Value, clip
from attune.base.json import Json
from attune.base.verdicts import Clause, Outcome, brief

_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class _Branch:
    kind: Literal["all", "any", "not"]
    text: str
    parts: "tuple[_Plan, ...]"


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A clause that is not made of clauses. Its values are noted under `key`."""

    text: str
    key: int
    operator: str | None = None


_Plan: TypeAlias = _Branch | _Leaf


class Explainer:
    """Explains one expression."""

    def __init__(self, tree: nodes.Expr, language: Language) -> None:
        translator = language.translator()
        taps = _Taps(translator)
        tapped = taps.clause(tree)
        self._program = language.program(tapped, translator)
        self._plan = taps.plan

    def explain(self, names: Mapping[str, Json]) -> Clause:
        """The clauses of the expression on `names`."""
        run = Run(names)
        error: str | None = None
        try:
            self._program.run(run)
        except ExpressionError as failure:
            error = failure.message
        return _Reader(run.taps, error).read(self._plan)


class _Taps:
    """Translates an expression with its clauses tapped; `plan` says what was tapped last."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._keys = 0
        self.plan: _Plan

    def clause(self, node: nodes.Node) -> nodes.Expr:
        """`node` translated, its clauses tapped."""
        text = clip(render(node), _TEXT)
        match node:
            case nodes.And() | nodes.Or():
                return self._joined(node, text)
            case nodes.Not():
                inner = self.clause(node.node)
                self.plan = _Branch("not", text, (self.plan,))
                return nodes.Not(inner)
            case nodes.Compare():
                return self._comparison(node, text)
            case _:
                self.plan = _Leaf(text, self._key())
                return operation("tap", nodes.Const(self.plan.key), self._translator.expression(node))

    def _joined(self, node: nodes.And | nodes.Or, text: str) -> nodes.Expr:
        plans: list[_Plan] = []

        def part(node: nodes.Node) -> nodes.Expr:
            translated = self.clause(node)
            plans.append(self.plan)
            return translated

        result = self._translator.joined(node, part)
        self.plan = _Branch("all" if isinstance(node, nodes.And) else "any", text, tuple(plans))
        return result

    def _comparison(self, node: nodes.Compare, text: str) -> nodes.Expr:
        operands = [node.expr, *(pair.expr for pair in node.ops)]
        leaves = []
        for left, pair in zip(operands, node.ops, strict=False):
            one = render(nodes.Compare(left, [pair]))
            leaves.append(_Leaf(clip(one, _TEXT), self._key(), SYMBOLS[pair.op]))
        self.plan = leaves[0] if len(leaves) == 1 else _Branch("all", text, tuple(leaves))
        key, at = nodes.Const(leaves[0].key), self._translator.place(node, operands)
        return operation("tap_comparison", key, at, *self._translator.operands(node))

    def _key(self) -> int:
        self._keys += 1
        return self._keys


class _Reader:
    """Makes clauses of a plan and what was noted."""

    def __init__(self, taps: Mapping[int, tuple[Value, Value, bool | None]], error: str | None) -> None:
        self._taps = taps
        self._error = error

    def read(self, plan: _Plan, reached: bool = True) -> Clause:
        """The clause of `plan`; skipped when the evaluation did not get there."""
        if isinstance(plan, _Leaf):
            return self._leaf(plan) if reached else Clause(_kind(plan), plan.text, "skipped", plan.operator)
        return self._branch(plan, reached)

    def _branch(self, plan: _Branch, reached: bool) -> Clause:
        # The outcome of a part after which the others no longer matter, besides an error.
        passing: Outcome = "false" if plan.kind == "any" else "true"
        clauses: list[Clause] = []
        outcome: Outcome = passing if reached else "skipped"
        for part in plan.parts:
            clause = self.read(part, outcome == passing)
            clauses.append(clause)
            outcome = clause.outcome if outcome == passing else outcome
        if plan.kind == "not" and outcome in {"true", "false"}:
            outcome = "false" if outcome == "true" else "true"
        return Clause(plan.kind, plan.text, outcome, clauses=tuple(clauses))

    def _leaf(self, plan: _Leaf) -> Clause:
        if plan.key not in self._taps:
            return Clause(_kind(plan), plan.text, "error", plan.operator, error=self._error)
        left, right, outcome = self._taps[plan.key]
        if plan.operator is None:
            outcome = bool(left)
        return Clause(
            _kind(plan),
            plan.text,
            "error" if outcome is None else "true" if outcome else "false",
            plan.operator,
            _shown(right),
            _shown(left),
            left is MISSING,
            self._error if outcome is None else None,
            expected_missing=plan.operator is not None and right is MISSING,
        )


def _kind(plan: _Leaf) -> Literal["comparison", "value"]:
    return "value" if plan.operator is None else "comparison"


def _shown(value: Value) -> Json:
    return None if isinstance(value, Missing) else brief(value)

"""Expressions, compiled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from jinja2 import nodes

from attune.base.expressions.explain import Explainer
from attune.base.expressions.language import STANDARD, Language, Program
from attune.base.expressions.paths import Path, paths
from attune.base.expressions.placeholders import unwrapped
from attune.base.expressions.run import Run
from attune.base.expressions.syntax import TextError, normalised, parse, refusal
from attune.base.expressions.values import Value
from attune.base.json import Json
from attune.base.verdicts import Clause

_CACHED = 2048


@dataclass(frozen=True)
class Expression:
    """An expression, ready to be evaluated. Two are equal when their text and their language are."""

    text: str
    language: Language = field(repr=False)
    roots: frozenset[str] = field(compare=False, repr=False)
    """The names it begins its paths with: `event` for `event.payload.x`."""
    _tree: nodes.Expr = field(compare=False, repr=False)
    _program: Program = field(compare=False, repr=False)

    def evaluate(self, names: Mapping[str, Json]) -> Value:
        """The value on `names`, which hold plain JSON; it may share parts with them.

        Raises ExpressionError saying which operation failed, and why.
        """
        return self._program.run(Run(names))

    def evaluate_in(self, run: Run) -> Value:
        """The value, sharing what the evaluation may do with others of the same `run`."""
        return self._program.run(run)

    def explain(self, names: Mapping[str, Json]) -> Clause:
        """What each clause came to on `names`. Its outcome is whether the value of `evaluate` counts as true."""
        return self._explainer.explain(names)

    @property
    def paths(self) -> frozenset[Path]:
        """The paths that it names: `("event", "payload", "x")` for `event.payload.x`."""
        return frozenset(paths(self._tree))

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self._tree, self.language)


def compile_expression(text: str, language: Language = STANDARD) -> Expression:
    """The expression that `text` is, with or without `{{ }}` around it.

    Raises ExpressionError saying what is wrong, where, and what to write instead.
    """
    return _compiled(unwrapped(normalised(text)), language)


def compile_inner(text: str, language: Language) -> Expression:
    """The expression that stands between the braces of a placeholder."""
    return _compiled(normalised(text), language)


@lru_cache(_CACHED)
def _compiled(text: str, language: Language) -> Expression:
    try:
        tree = parse(language.environment, text)
        translator = language.translator()
        translated = translator.expression(tree)
    except TextError as error:
        raise refusal(text, error) from error
    program = language.program(translated, translator)
    return Expression(text, language, frozenset(translator.roots), tree, program)

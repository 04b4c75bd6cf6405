"""The language: its functions, and the sandbox that compiles and runs its expressions."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from attune.base.expressions.functions import Function
from attune.base.expressions.library import FILTERS, FUNCTIONS, TESTS
from attune.base.expressions.operators import OPERATORS, path
from attune.base.expressions.run import Run
from attune.base.expressions.source import render
from attune.base.expressions.translate import Place, Translator
from attune.base.expressions.values import ExpressionError, MissingOperandError, OperationError, Value, clip

if TYPE_CHECKING:
    from jinja2.runtime import Context

# Templates cannot hold NUL characters, so that neither can they hold any of Jinja's delimiters.
_DELIMITERS: Final = {
    "block_start_string": "\0%",
    "block_end_string": "%\0",
    "variable_start_string": "\0{",
    "variable_end_string": "}\0",
    "comment_start_string": "\0#",
    "comment_end_string": "#\0",
}


class Language:
    """A set of functions that expressions may call, in parentheses or as filters."""

    def __init__(
        self, functions: Mapping[str, Function] = FUNCTIONS, filters: Mapping[str, Function] = FILTERS
    ) -> None:
        self.functions = functions
        self.filters = filters
        self.environment: Final = _Sandbox(_operators(functions, filters))

    def extended(self, functions: Mapping[str, Function]) -> "Language":
        """This language with more functions. Their Run shows them the names of the evaluation."""
        return Language({**self.functions, **functions}, self.filters)

    def translator(self) -> Translator:
        """A translator that knows this language's functions."""
        return Translator(self.functions, self.filters)

    def program(self, translated: nodes.Expr, translator: Translator) -> "Program":
        """The compiled form of what `translator` made."""
        code = _direct(translated) or self.environment.compiled(translated)
        return Program(code, tuple(translator.places), frozenset(translator.patterns))


class Program:
    """Compiled code, and what it needs to run and to say where it failed."""

    __slots__ = ("_code", "_patterns", "_places")

    def __init__(self, code: Callable[[Run], Value], places: tuple[Place, ...], patterns: frozenset[str]) -> None:
        self._code = code
        self._places = places
        self._patterns = patterns

    def run(self, run: Run) -> Value:
        """The value of the expression. Raises ExpressionError when it has none."""
        run.patterns = self._patterns
        try:
            return self._code(run)
        except OperationError as error:
            raise ExpressionError(self._described(error, self._places[run.at])) from error

    @staticmethod
    def _described(error: OperationError, place: Place) -> str:
        what = str(error)
        if isinstance(error, MissingOperandError):
            operand = clip(render(place.operands[error.index]))
            what = f'{operand} is missing; "| default(…)" gives it a value'
        return f"In `{clip(render(place.node))}`: {what}."


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox with nothing in it but our operators; translated expressions do not even ask it for more."""

    def __init__(self, operators: dict[str, Callable[..., Any]]) -> None:
        # The optimizer would compute constant expressions while compiling, with Python's own operators.
        super().__init__(**_DELIMITERS, optimized=False, autoescape=False, cache_size=0)
        self.filters = operators
        self.tests = {}
        self.globals = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002
        return False

    def is_safe_callable(self, obj: Any) -> bool:  # noqa: ARG002
        return False

    def compiled(self, expression: nodes.Expr) -> Callable[[Run], Value]:
        """The code that computes `expression`."""
        body: list[nodes.Node] = [nodes.Assign(nodes.Name("_value", "store"), expression, lineno=1)]
        render = self.from_string(nodes.Template(body, lineno=1)).root_render_func

        def evaluate(run: Run) -> Value:
            for _ in render(cast("Context", run)):
                pass
            return run.vars["_value"]

        return evaluate


def _direct(expression: nodes.Expr) -> Callable[[Run], Value] | None:
    """The code of a plain path, which most placeholders are; it takes an eighth of the time to compile."""
    if not isinstance(expression, nodes.Filter) or expression.name != "path":
        return None
    root, *keys = [part.value for part in (expression.node, *expression.args) if isinstance(part, nodes.Const)]
    if len(keys) < len(expression.args):
        return None
    return lambda run: path(run, root, *keys)


def _operators(functions: Mapping[str, Function], filters: Mapping[str, Function]) -> dict[str, Callable[..., Any]]:
    return {
        **OPERATORS,
        **{f"is {name}": test for name, test in TESTS.items()},
        **{f"{name}()": function.operator(name) for name, function in functions.items()},
        **{f"| {name}": function.operator(name) for name, function in filters.items()},
    }


STANDARD: Final = Language()

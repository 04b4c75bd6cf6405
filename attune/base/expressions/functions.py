"""What a function of the language is to the compiler: how to call it, and with what."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from jinja2 import pass_context

from attune.base.expressions.run import Run
from attune.base.expressions.values import MISSING, Missing, MissingOperandError, OperationError, Value, described


@dataclass(frozen=True)
class Kind:
    """What an argument may be."""

    phrase: str
    types: frozenset[type]


def _kind(phrase: str, *types: type) -> Kind:
    return Kind(phrase, frozenset(types))


STRING: Final = _kind("a string", str)
NUMBER: Final = _kind("a number", int, float)
INTEGER: Final = _kind("a whole number", int)
BOOLEAN: Final = _kind("true or false", bool)
ARRAY: Final = _kind("an array", list)
OBJECT: Final = _kind("an object", dict)
SEQUENCE: Final = _kind("a string or an array", str, list)
COLLECTION: Final = _kind("a string, an array or an object", str, list, dict)
ANY: Final = _kind("a value", NoneType, bool, int, float, str, list, dict)
ANY_OR_MISSING: Final = Kind("a value", ANY.types | {Missing})


@dataclass(frozen=True)
class Function:
    """A function of the language: `call` gets the Run, then arguments that are of their `kinds`.

    The parameters of `call` without a default are needed; the kind of a `*rest` parameter is the last one.
    """

    call: Callable[..., Value]
    kinds: tuple[Kind, ...]
    names: tuple[str, ...]
    least: int
    most: int | None

    @classmethod
    def of(cls, call: Callable[..., Value], *kinds: Kind) -> "Function":
        """`call` as a function of the language."""
        parameters = list(inspect.signature(call).parameters.values())[1:]
        rest = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL
        named = parameters[:-1] if rest else parameters
        least = sum(parameter.default is inspect.Parameter.empty for parameter in named)
        assert len(kinds) == len(parameters), call
        return cls(call, kinds, tuple(p.name for p in parameters), least, None if rest else len(named))

    def arity_problem(self, count: int) -> str | None:
        """What is wrong with calling it with `count` arguments; None when nothing is."""
        if self.least <= count and (self.most is None or count <= self.most):
            return None
        wanted = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        if self.most is None:
            wanted = f"at least {self.least}"
        plural = "" if wanted == "1" else "s"
        return f"takes {wanted} argument{plural} ({', '.join(self.names)}), not {count}"

    def operator(self, name: str) -> Callable[..., Value]:
        """The function as the compiled code calls it, checking its arguments."""
        call, types, last = self.call, tuple(kind.types for kind in self.kinds), len(self.kinds) - 1

        @pass_context
        def operator(run: Run, at: int, *arguments: Any) -> Value:
            run.at = at
            index = 0
            for argument in arguments:
                if type(argument) not in types[index]:
                    raise self._unfit(name, arguments)
                if index < last:
                    index += 1
            return call(run, *arguments)

        return operator

    def _unfit(self, name: str, arguments: tuple[Any, ...]) -> OperationError:
        for index, argument in enumerate(arguments):
            parameter = min(index, len(self.kinds) - 1)
            kind = self.kinds[parameter]
            if type(argument) not in kind.types:
                if argument is MISSING:
                    return MissingOperandError(index)
                return OperationError(
                    f'{name} wants {kind.phrase} as "{self.names[parameter]}" (argument {index + 1}), '
                    f"not {described(argument)}"
                )
        raise AssertionError("every argument fits")

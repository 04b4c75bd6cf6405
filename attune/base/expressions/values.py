"""What an expression works with: JSON values, and missing."""

from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from attune.base.errors import BadInput

if TYPE_CHECKING:
    from attune.base.json import Json


class Missing(Enum):
    """The type of MISSING, what a lookup that finds nothing gives: it is false and matches nothing, itself included."""

    MISSING = "missing"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "missing"

    __str__ = __repr__


MISSING: Final = Missing.MISSING

Value: TypeAlias = "Json | Missing"

NUMBERS: Final = frozenset({int, float})
CONTAINERS: Final = frozenset({list, dict})
SCALARS: Final = frozenset({str, int, float, bool, NoneType})

_NAMES: Final[dict[type, str]] = {
    NoneType: "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    Missing: "missing",
}


class ExpressionError(BadInput):
    """An expression that does not compile, or that could not be evaluated on these values."""

    code: ClassVar[str] = "EXPRESSION_ERROR"


class OperationError(Exception):
    """Why one operation failed; the program that ran it says where, as an ExpressionError."""


class MissingOperandError(OperationError):
    """The operand with this index is missing where a value is needed."""

    def __init__(self, index: int) -> None:
        super().__init__("a value is missing")
        self.index = index


def type_name(value: Any) -> str:
    """The JSON type of `value`: null, boolean, number, string, array, object; or missing."""
    return _NAMES.get(type(value), "unknown")


def described(value: Any) -> str:
    """`value`'s type in a sentence: "a number", "an array", "null"."""
    return described_type(type(value))


def described_type(kind: type) -> str:
    """What `described` says of values of this type."""
    name = _NAMES.get(kind, "unknown")
    if name in {"null", "missing"}:
        return name
    return f"an {name}" if name[0] in "aou" else f"a {name}"


def clip(text: str, length: int = 80) -> str:
    """`text` for a message: at most `length` characters, a cut marked with an ellipsis, and nothing unstorable."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()

"""Text to syntax tree, by Jinja's lexer and parser.

The tokens carry their offset in the text where Jinja keeps a line number, so every node of the tree knows its place and
every message can name it.
"""

import re
from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream
from jinja2.parser import Parser

from attune.base.expressions.values import ExpressionError, clip

MAX_LENGTH: Final = 8192
MAX_BRACKETS: Final = 32
# Names, numbers, strings and signs. Compiling takes about 0.03 ms for each.
MAX_TOKENS: Final = 2000

_RESERVED: Final = frozenset({"and", "or", "not", "in", "is", "if", "else"})
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_HINTS: Final = (
    ("=", 'write "==" to compare'),
    ("&", 'write "and"'),
    ("|", 'write "or", or name a filter after a single "|"'),
    ("!", 'write "not"'),
    ("?", 'write "x if condition else y"'),
    ("{{", 'write the expression without "{{" inside'),
    ("`", "strings stand in single or double quotes"),
    ("$", "names are written without $"),
)


class TextError(Exception):
    """What is wrong with a text, and at which offset."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.offset = offset


def refusal(text: str, error: TextError) -> ExpressionError:
    """The error that tells a person what is wrong with `text`, and where."""
    before = text[: error.offset]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    rest = text[error.offset :].lstrip()
    place = f'near "{clip(rest, 30)}"' if rest else "at the end"
    end = "" if str(error).endswith("?") else "."
    return ExpressionError(f"Line {line}, column {column}, {place}: {error}{end}")


def normalised(text: str) -> str:
    """`text` without surrounding space, its lines ending as Jinja's lexer ends them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def parse(environment: Environment, text: str) -> nodes.Expr:
    """The syntax tree of a normalised `text`. Raises TextError when it is not one expression."""
    if len(text) > MAX_LENGTH:
        raise TextError(f"an expression has at most {MAX_LENGTH:,} characters, this one {len(text):,}", 0)
    if not text:
        raise TextError("an expression is empty", 0)
    parser = _Parser(environment, "")
    try:
        parser.stream = TokenStream(environment.lexer.wrap(_Tokens(environment, text).read()), None, None)
        tree = parser.parse_expression()
        if not parser.stream.eos:
            raise _hinted("the expression should have ended before this", text, parser.stream.current.lineno)
    except TemplateSyntaxError as error:
        if parser.stream.eos:
            raise TextError("the expression ends too early", len(text)) from error
        raise _hinted(_plain(error), text, error.lineno) from error
    except RecursionError as error:
        raise TextError("the expression is nested too deeply", 0) from error
    return tree


def _hinted(what: str, text: str, offset: int) -> TextError:
    """The error at `offset`, with what to write instead when it is a common one."""
    if what.startswith("unexpected char") and text[offset] in "\"'":
        return TextError("this string is never closed", offset)
    hint = next((hint for start, hint in _HINTS if text.startswith(start, offset)), None)
    return TextError(f"{what}; {hint}" if hint else what, offset)


def _plain(error: TemplateSyntaxError) -> str:
    """Jinja's message without its positions."""
    return re.sub(r" at \d+$", "", error.message or "").rstrip(".")


class _Parser(Parser):
    """Jinja's parser, with `is` tests that take no argument and know whether they are negated."""

    def parse_test(self, node: nodes.Expr) -> nodes.Expr:
        offset = next(self.stream).lineno
        negation = "not " if self.stream.skip_if("name:not") else ""
        name = self.stream.expect("name").value
        return nodes.Test(node, negation + name, [], [], None, None, lineno=offset)

    def parse_primary(self, with_namespace: bool = False) -> nodes.Expr:  # noqa: ARG002
        token = self.stream.current
        if token.type == "name" and token.value in _RESERVED:
            self.fail(f'a value is expected here, not "{token.value}"', token.lineno)
        return super().parse_primary()


class _Tokens:
    """The raw tokens of a text, each with its offset instead of its line."""

    def __init__(self, environment: Environment, text: str) -> None:
        self._lexer = environment.lexer
        self._text = text
        self._offset = 0
        self._brackets = 0
        self._count = 0

    def read(self) -> Iterator[tuple[int, str, str]]:
        try:
            for _, kind, source in self._lexer.tokeniter(self._text, None, state="variable"):
                yield self._offset, kind, self._checked(kind, source)
                self._offset += len(source)
        except TemplateSyntaxError as error:
            raise _hinted(_plain(error), self._text, self._offset) from error

    def _checked(self, kind: str, source: str) -> str:
        self._count += kind != "whitespace"
        if self._count > MAX_TOKENS:
            raise TextError(f"an expression has at most {MAX_TOKENS:,} words and signs", self._offset)
        if kind == "string":
            return f'"{self._string(source[1:-1])}"'
        if kind == "name" and not source.isidentifier():
            raise TextError(f'"{clip(source, 30)}" cannot be a name', self._offset)
        if kind == "integer" and len(source) > 100:
            raise TextError("the number does not fit into 64 bits", self._offset)
        if kind == "operator":
            self._brackets += (source in "([{") - (source in ")]}")
            if self._brackets > MAX_BRACKETS:
                raise TextError(f"brackets are nested deeper than {MAX_BRACKETS}", self._offset)
        return source

    def _string(self, source: str) -> str:
        """The text of a string literal, escaped as Jinja's lexer reads it back.

        Escapes are those of JSON, and `\\'` and `\\x41`. Any other backslash stays, for regular expressions.
        """
        value = _ESCAPE.sub(_unescaped, source)
        if "\x00" in value:
            raise TextError("a string holds a NUL character, which cannot be stored", self._offset)
        if not value.isascii():
            try:
                value = value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError as error:
                raise TextError("a string holds half of a surrogate pair", self._offset) from error
        return value.encode("unicode_escape").decode()


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _ESCAPES.get(escape, match[0])

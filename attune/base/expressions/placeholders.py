"""Where the placeholders of a text are."""

import re
from typing import Final

from attune.base.expressions.syntax import MAX_LENGTH, TextError, refusal

OPEN: Final = "{{"
CLOSE: Final = "}}"

# A string, a brace, or anything up to the next of these.
_PIECE: Final = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|[{}]|[^'"{}]+|.""", re.DOTALL)


def split(text: str) -> list[tuple[str, str]]:
    """`text` as pairs of literal text and the expression behind it; the last pair has an empty expression.

    Raises ExpressionError when a placeholder is not closed.
    """
    pairs = []
    start = 0
    while (opening := text.find(OPEN, start)) >= 0:
        closing = _closing(text, opening)
        pairs.append((text[start:opening], text[opening + 2 : closing]))
        start = closing + 2
    pairs.append((text[start:], ""))
    return pairs


def unwrapped(text: str) -> str:
    """`text` without the `{{ }}` that stands around all of it."""
    if not text.startswith(OPEN):
        return text
    closing = _closing(text, 0)
    if closing + 2 < len(text):
        raise refusal(text, TextError("a condition is one expression; only all of it can stand in {{ }}", closing + 2))
    return text[2:closing].strip()


def _closing(text: str, opening: int) -> int:
    """Where the `}}` of the placeholder at `opening` stands: outside of strings, and of the braces of objects."""
    braces = 0
    for piece in _PIECE.finditer(text, opening + 2, opening + MAX_LENGTH + 4):
        if piece[0] == "{":
            braces += 1
        elif piece[0] == "}":
            if not braces and text.startswith(CLOSE, piece.start()):
                return _without_control(text, opening, piece.start())
            braces = max(braces - 1, 0)
        elif piece[0] in {"'", '"'}:
            raise refusal(text, TextError("this string is never closed", piece.start()))
    raise refusal(
        text, TextError('"{{" opens a placeholder that is never closed; a literal one is {{ "{{" }}', opening)
    )


def _without_control(text: str, opening: int, closing: int) -> int:
    # `{{-` would trim the text before it in Jinja, and be a minus here.
    if text[opening + 2] == "-" or text[closing - 1] == "-":
        raise refusal(text, TextError('"{{-" and "-}}" do not trim text here; for a minus write {{ -x }}', opening))
    return closing

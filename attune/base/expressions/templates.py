"""Text with placeholders, and JSON that holds such text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from attune.base.errors import Problem
from attune.base.expressions.expression import Expression, compile_inner
from attune.base.expressions.language import STANDARD, Language
from attune.base.expressions.placeholders import OPEN, split
from attune.base.expressions.run import Run
from attune.base.expressions.values import CONTAINERS, ExpressionError, Missing, OperationError, clip
from attune.base.json import Json, pointer

MAX_PLACEHOLDERS: Final = 500
# With the deepest value that can be stored in the deepest place, JSON text can still be made of the result.
MAX_TREE: Final = 50

_TOO_MANY: Final = f"There are more than {MAX_PLACEHOLDERS} placeholders in what is filled in at once."
_CACHED: Final = 2048
_CACHED_LENGTH: Final = 4096


@dataclass(frozen=True)
class Template:
    """Text with placeholders, ready to be rendered."""

    text: str
    parts: tuple[str | Expression, ...]
    placeholders: int

    def render(self, names: Mapping[str, Json]) -> Json:
        """The text with its placeholders filled in; of a text that is one placeholder, its value of whatever type.

        A missing value is null as a whole, and nothing inside text. Raises ExpressionError.
        """
        return _Filling(names).template(self)


class _Filling:
    """One resolution: all its placeholders share what one evaluation may do and build."""

    def __init__(self, names: Mapping[str, Json]) -> None:
        self._run = Run(names)
        self._built = 0
        self._placeholders = 0

    def template(self, template: Template) -> Json:
        self._placeholders += template.placeholders
        if self._placeholders > MAX_PLACEHOLDERS:
            raise ExpressionError(_TOO_MANY)
        try:
            return self._filled(template.parts)
        except OperationError as error:
            raise ExpressionError(f'In "{clip(template.text)}": {error}.') from error

    def tree(self, value: Json, language: Language, depth: int = 0) -> Json:
        if isinstance(value, str):
            return self.template(compile_template(value, language)) if OPEN in value else value
        if depth >= MAX_TREE and type(value) in CONTAINERS:
            raise ExpressionError(f"Placeholders can stand in JSON of at most {MAX_TREE} levels.")
        if isinstance(value, list):
            return [self.tree(item, language, depth + 1) for item in value]
        if isinstance(value, dict):
            return {key: self.tree(item, language, depth + 1) for key, item in value.items()}
        return value

    def _filled(self, parts: tuple[str | Expression, ...]) -> Json:
        run = self._run
        if len(parts) == 1 and isinstance(parts[0], Expression):
            value = parts[0].evaluate_in(run)
            if isinstance(value, Missing):
                return None
            self._build(run.size(value))
            return value
        texts = [part if isinstance(part, str) else run.text(part.evaluate_in(run)) for part in parts]
        self._build(sum(map(len, texts)))
        return "".join(texts)

    def _build(self, size: int) -> None:
        self._built += size
        self._run.room(self._built)


def compile_template(text: str, language: Language = STANDARD) -> Template:
    """`text` as a template: only `{{ … }}` is special in it. Raises ExpressionError saying what is wrong, and where."""
    return _remembered(text, language) if len(text) <= _CACHED_LENGTH else _compiled(text, language)


def resolve(value: Json, names: Mapping[str, Json], language: Language = STANDARD) -> Json:
    """`value` with every string in it that has placeholders rendered; keys are left alone. Raises ExpressionError."""
    return _Filling(names).tree(value, language)


def has_template(value: Json) -> bool:
    """Whether any string in `value` has placeholders."""
    return any(True for _ in _templates(value))


def problems(value: Json, where: str = "", language: Language = STANDARD) -> list[Problem]:
    """Every string in `value` that is no template although it has placeholders, as JSON Pointers below `where`."""
    found: list[Problem] = []
    placeholders = 0
    for path, text in _templates(value):
        try:
            placeholders += compile_template(text, language).placeholders
            if placeholders > MAX_PLACEHOLDERS:
                return [*found, Problem(where, _TOO_MANY)]
        except ExpressionError as error:
            placeholders += 1
            found.append(Problem(where + pointer(path), error.message))
    return found


def _templates(value: Json) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every string in `value` with a placeholder, in order, and the path to it."""
    pending: list[tuple[tuple[str | int, ...], Json]] = [((), value)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, str):
            if OPEN in item:
                yield path, item
        elif isinstance(item, list | dict):
            children: Iterable[tuple[str | int, Json]] = item.items() if isinstance(item, dict) else enumerate(item)
            pending.extend(((*path, key), child) for key, child in reversed([*children]) if _may_hold_one(child))


def _may_hold_one(value: Json) -> bool:
    return OPEN in value if isinstance(value, str) else type(value) in CONTAINERS


def _compiled(text: str, language: Language) -> Template:
    pairs = split(text)
    if len(pairs) - 1 > MAX_PLACEHOLDERS:
        raise ExpressionError(_TOO_MANY)
    parts: list[str | Expression] = []
    for literal, inner in pairs[:-1]:
        parts += [literal, _inner(inner, language)]
    parts.append(pairs[-1][0])
    return Template(text, tuple(part for part in parts if part != ""), len(pairs) - 1)


_remembered = lru_cache(_CACHED)(_compiled)


def _inner(text: str, language: Language) -> Expression:
    try:
        return compile_inner(text, language)
    except ExpressionError as error:
        raise ExpressionError(f'In "{{{{{clip(text)}}}}}": {error.message}') from error

"""YAML files with the line of every key, so that an error can say where."""

import stat
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from attune.base.errors import BadInput, Problem
from attune.base.json import Json, pointer, unstorable
from attune.base.validation import problems_of

Model = TypeVar("Model", bound=BaseModel)

_MAX_BYTES = 1_000_000
_MAX_VALUES = 100_000
_MAX_DEPTH = 100
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE_TAG = "tag:yaml.org,2002:merge"


class YamlError(BadInput):
    """A file is wrong. The `where` of each problem is `file:line`."""

    code = "BAD_FILE"


class YamlFile(Generic[Model]):
    """What a file says, as `content`, and where it says so."""

    def __init__(self, path: Path, model: type[Model]) -> None:
        """Raises YamlError with file, line, key and what was expected."""
        self.path = path
        self._lines: dict[str, int] = {"": 1}
        self._values = 0
        # Turns scalars into values; of a document's structure this class takes care itself.
        self._scalars = yaml.constructor.SafeConstructor()
        node = self._compose()
        value: Json = None if node is None else self._value(node, ())
        if not isinstance(value, dict):
            self._refuse("", f"expected a map with keys such as {', '.join(list(model.model_fields)[:3])}")
        unusable = [self.problem(problem.where, problem.what) for problem in unstorable(value)]
        if unusable:
            raise YamlError(f"{path} is wrong.", unusable)
        try:
            self.content = model.model_validate(value)
        except ValidationError as error:
            problems = [self.problem(problem.where, problem.what) for problem in problems_of(error, model)]
            raise YamlError(f"{path} is wrong.", problems) from error

    def problem(self, where: str, what: str) -> Problem:
        """A problem at a JSON Pointer, with the line of the nearest key around it."""
        key = where.removeprefix("/").replace("/", ".")
        while where not in self._lines:
            where = where.rpartition("/")[0]
        return Problem(f"{self.path}:{self._lines[where]}", f"{key}: {what}" if key else what)

    def _refuse(self, where: str, what: str) -> NoReturn:
        raise YamlError(f"{self.path} is wrong.", [self.problem(where, what)])

    def _compose(self) -> yaml.Node | None:
        try:
            text = content_of(self.path).decode()
        except UnicodeDecodeError as error:
            self._refuse("", f"is not UTF-8: {error.reason} at byte {error.start}")
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._lines[""] = mark.line + 1 if mark else 1
            self._refuse("", f"is not YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            self._lines[""] = text.count("\n", 0, error.position) + 1
            self._refuse("", f"is not YAML: it holds the character {chr(int(error.character))!r}")
        except RecursionError:
            self._refuse("", "is nested too deeply")

    def _value(self, node: yaml.Node, path: tuple[str | int, ...]) -> Json:
        self._lines.setdefault(pointer(path), node.start_mark.line + 1)
        self._values += 1
        if self._values > _MAX_VALUES or len(path) > _MAX_DEPTH:
            self._refuse(pointer(path), "is too large or nested too deeply; aliases count each time")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _PLAIN_TAGS:
            self._refuse(pointer(path), f"the tag {node.tag} means nothing here")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]

    def _map(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> Json:
        values: dict[str, Json] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(pointer(path), "a key must be text")
            key = str(key_node.value)
            here = (*path, key)
            self._lines[pointer(here)] = key_node.start_mark.line + 1
            if key_node.tag == _MERGE_TAG:
                self._refuse(pointer(here), "maps cannot be merged: write the keys out")
            if key in values:
                self._refuse(pointer(here), "stands here twice")
            values[key] = self._value(value_node, here)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str | int, ...]) -> Json:
        try:
            value: object = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
            self._refuse(pointer(path), f"cannot be read: {problem}")
        # YAML reads 2026-01-31 as a date and 12:30 as 750; whoever writes a pack means the text.
        if value is None or (isinstance(value, bool | int | float) and ":" not in node.value):
            return value
        return str(node.value)


def content_of(path: Path) -> bytes:
    """The content of a file of a pack. Raises YamlError when it is none, cannot be read, or is too large."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "is no file"
        elif found.st_size > _MAX_BYTES:
            what = f"is larger than {_MAX_BYTES:,} bytes"
        else:
            return path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    raise YamlError(f"{path} is wrong.", [Problem(f"{path}:1", what)])

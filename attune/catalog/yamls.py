"""YAML files with the line of every key, so that an error can say where."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from attune.base.errors import BadInput, Problem
from attune.base.json import Json, JsonObject, pointer, unstorable
from attune.base.validation import problems_of

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1_000_000
_MAX_VALUES = 100_000
_MAX_DEPTH = 100
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE_TAG = "tag:yaml.org,2002:merge"


class YamlError(BadInput):
    """A file is wrong. The `where` of each problem is `file:line`."""

    code = "BAD_FILE"


@dataclass(frozen=True, slots=True)
class FileProblem(Problem):
    """A problem with its place in a file. `key` is the dotted way to what is wrong, empty for the whole file."""

    file: Path
    line: int
    key: str
    detail: str

    @classmethod
    def at(cls, file: Path, line: int, key: str, detail: str) -> "FileProblem":
        """The problem, in words as well."""
        return cls(f"{file}:{line}", f"{key}: {detail}" if key else detail, file, line, key, detail)


class YamlFile(Generic[Model]):
    """What a file says, as `content`, and where it says so."""

    def __init__(self, path: Path, model: type[Model], text: bytes | None = None) -> None:
        """`text` is what the file holds, if it was read already. Raises YamlError with file, line, key and what was
        expected."""
        self.path = path
        self._text = text
        self._short: dict[str, str] = getattr(model, "short", {})
        self._written: dict[str, str] = {}
        self._lines: dict[str, int] = {"": 1}
        self._values = 0
        # Turns scalars into values; of a document's structure this class takes care itself.
        self._scalars = yaml.constructor.SafeConstructor()
        node = self._compose()
        value: Json = None if node is None else self._value(node, ())
        if not isinstance(value, dict):
            self._refuse("", f"expected a map with keys such as {', '.join(list(model.model_fields)[:3])}")
        self._spell_out(value)
        unusable = [self.problem(problem.where, problem.what) for problem in unstorable(value)]
        if unusable:
            raise YamlError(f"{path} is wrong.", unusable)
        try:
            self.content = model.model_validate(value)
        except ValidationError as error:
            problems = [self.problem(problem.where, problem.what) for problem in problems_of(error, model)]
            raise YamlError(f"{path} is wrong.", problems) from error

    def problem(self, where: str, what: str) -> FileProblem:
        """A problem at a JSON Pointer, with the line of the nearest key around it."""
        first, *rest = where.removeprefix("/").split("/")
        key = ".".join([self._written.get(first, first), *rest])
        while where not in self._lines:
            where = where.rpartition("/")[0]
        return FileProblem.at(self.path, self._lines[where], key, what)

    def _spell_out(self, value: JsonObject) -> None:
        """Put what stands under a short key under the long one."""
        for short, long in self._short.items():
            if short not in value:
                # Who is told that it is missing is told the short one.
                self._written |= {long: short} if long not in value else {}
                continue
            if long in value:
                self._refuse(pointer((short,)), f"says the same as {long}; leave one of them out")
            value[long] = value.pop(short)
            self._written[long] = short
            self._lines[pointer((long,))] = self._lines[pointer((short,))]

    def _refuse(self, where: str, what: str) -> NoReturn:
        raise YamlError(f"{self.path} is wrong.", [self.problem(where, what)])

    def _compose(self) -> yaml.Node | None:
        try:
            text = (content_of(self.path) if self._text is None else self._text).decode()
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
        elif found.st_size > MAX_BYTES:
            what = f"is larger than {MAX_BYTES:,} bytes"
        else:
            return path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    raise YamlError(f"{path} is wrong.", [FileProblem.at(path, 1, "", what)])

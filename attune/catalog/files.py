"""Packs as folders: `pack.yaml`, `triggers/*.yaml`, `actions/*.yaml`, `rules/*.yaml`. Hidden files are none of them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from attune.base import refs
from attune.base.errors import Problem
from attune.base.schema import check_schema, parameters, validate
from attune.catalog.model import OutputFormat, Runtime
from attune.catalog.yamls import YamlError, YamlFile, content_of

Component = TypeVar("Component", "TriggerFile", "ActionFile", "RuleFile")

Label = Annotated[str, Field(min_length=1, max_length=255)]


def _pack_ref(text: str) -> str:
    if not refs.is_pack_ref(text):
        raise ValueError(f"{text!r} is no pack ref: {refs.PACK_SHAPE}")
    return text


Object = dict[str, Any]
"""A JSON object. pydantic cannot follow our recursive type; what comes from YAML is JSON already."""


class _File(BaseModel):
    """`_schemas` names the keys that hold schemas."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    _schemas: ClassVar[tuple[str, ...]] = ()

    def problems(self) -> Iterator[Problem]:
        """What is wrong though every key has its type, as JSON Pointers."""
        for name in self._schemas:
            yield from check_schema(getattr(self, name), f"/{name}")


class PackFile(_File):
    _schemas = ("conf_schema",)

    ref: Annotated[str, AfterValidator(_pack_ref)]
    label: Label
    version: Annotated[str, Field(min_length=1, max_length=50)]
    description: str | None = None
    author: str | None = None
    email: str | None = None
    system: bool = False
    conf_schema: Object = {}
    config: Object = {}
    meta: Object = {}
    tags: list[str] = []
    runtime_deps: list[str] = []
    dependencies: list[str] = []

    def problems(self) -> Iterator[Problem]:
        wrong = list(super().problems())
        yield from wrong
        if not wrong:
            # What is required and not there yet may be said later.
            absent = parameters(self.conf_schema).keys() - self.config.keys()
            yield from validate(self.config, self.conf_schema, where="/config", skip=absent)


class TriggerFile(_File):
    _schemas = ("parameters", "output")

    ref: str
    label: Label
    description: str | None = None
    enabled: bool = True
    parameters: Object = {}
    output: Object = {}


_FOLDERS = ("triggers", "actions", "rules")

# What packs of the platform may hold besides. To leave it out without a word would be half a pack.
_UNKNOWN_FOLDERS = ("permission_sets", "runtimes", "queues", "sensors", "policies", "workflows", "actions/workflows")

# Raised when this release makes something else of the same files than the one before: then all are read again.
_FORMAT = 1

RUNNERS = {"shell": Runtime.SHELL, "python": Runtime.PYTHON, "builtin": Runtime.BUILTIN}


class ActionFile(_File):
    _schemas = ("parameters", "output")

    ref: str
    label: Label
    description: str | None = None
    entry_point: Annotated[str, Field(min_length=1, max_length=1024)]
    runner_type: Literal["shell", "python", "builtin"] = "shell"
    parameters: Object = {}
    output: Object = {}
    parameter_delivery: Literal["stdin"] = "stdin"
    parameter_format: Literal["json"] = "json"
    output_format: Annotated[OutputFormat, Field(strict=False)] = OutputFormat.TEXT
    timeout: Annotated[int, Field(ge=1, le=604_800)] | None = None


class RuleFile(_File):
    ref: str
    trigger_ref: str
    action_ref: str
    label: Label
    description: str | None = None
    enabled: bool = True
    conditions: Any = []
    action_params: Object = {}
    trigger_params: Object = {}


@dataclass(frozen=True, slots=True)
class PackFolder:
    """A pack as its folder has it."""

    directory: Path
    checksum: str
    pack: PackFile
    triggers: tuple[TriggerFile, ...]
    actions: tuple[ActionFile, ...]
    rules: tuple[YamlFile[RuleFile], ...]


def checksum(directory: Path) -> str:
    """A checksum of all files of a pack that are read here."""
    digest = hashlib.sha256(f"{_FORMAT}\n".encode())
    folders = (directory / name for name in (*_FOLDERS, *_UNKNOWN_FOLDERS))
    for path in (directory / "pack.yaml", *(path for folder in folders for path in _files(folder))):
        content = content_of(path)
        digest.update(f"{path.relative_to(directory)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_pack(directory: Path) -> PackFolder:
    """The pack of a folder, wholly or not at all. Raises YamlError with every problem of all its files."""
    # Before the files are read: what is changed meanwhile is then read again the next time.
    digest = checksum(directory)
    pack = YamlFile(directory / "pack.yaml", PackFile)
    ref = pack.content.ref
    problems = [*_located(pack), *_unknown_folders(directory)]
    triggers = _components(directory / "triggers", TriggerFile, ref, problems)
    actions = _components(directory / "actions", ActionFile, ref, problems)
    rules = _components(directory / "rules", RuleFile, ref, problems)
    for action in actions:
        problems.extend(action.problem(*problem) for problem in _entry_point_problems(action, ref))
    if problems:
        raise YamlError(f"The pack in {directory} is not loaded.", problems)
    return PackFolder(
        directory,
        digest,
        pack.content,
        tuple(trigger.content for trigger in triggers),
        tuple(action.content for action in actions),
        tuple(rules),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for suffix in ("yaml", "yml") for path in folder.glob(f"[!.]*.{suffix}"))


def _located(file: YamlFile[Any]) -> Iterator[Problem]:
    return (file.problem(problem.where, problem.what) for problem in file.content.problems())


def _unknown_folders(directory: Path) -> Iterator[Problem]:
    for name in _UNKNOWN_FOLDERS:
        if _files(directory / name):
            yield Problem(str(directory / name), f"this release of Attune knows no {name.rpartition('/')[2]}")


def _components(
    folder: Path, model: type[Component], pack_ref: str, problems: list[Problem]
) -> list[YamlFile[Component]]:
    components: dict[str, YamlFile[Component]] = {}
    for path in _files(folder):
        if path.suffix != ".yaml":
            problems.append(Problem(str(path), f"rename it to {path.stem}.yaml: only such files are read"))
            continue
        try:
            file = YamlFile(path, model)
        except YamlError as error:
            problems.extend(error.problems)
            continue
        ref = file.content.ref
        problems.extend(_located(file))
        if not refs.is_component_ref(ref) or refs.pack_of(ref) != pack_ref:
            problems.append(file.problem("/ref", f"{ref!r} must be {pack_ref}.name ({refs.COMPONENT_SHAPE})"))
        elif ref in components:
            problems.append(file.problem("/ref", f"{ref!r} stands in {components[ref].path} too"))
        components.setdefault(ref, file)
    return list(components.values())


def _entry_point_problems(file: YamlFile[ActionFile], pack_ref: str) -> Iterator[tuple[str, str]]:
    action = file.content
    if action.runner_type == "builtin":
        if pack_ref != "core":
            yield "/runner_type", "builtin is for the core pack; use shell or python"
        return
    folder = file.path.parent.resolve()
    try:
        script = (folder / action.entry_point).resolve()
        is_there = script.is_file()
    except OSError as error:
        yield "/entry_point", f"{action.entry_point!r} cannot be looked at: {error.strerror}"
        return
    if not script.is_relative_to(folder):
        yield "/entry_point", f"{action.entry_point!r} leaves the folder {folder}"
    elif not is_there:
        yield "/entry_point", f"there is no file {script}"

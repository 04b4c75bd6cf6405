"""Definitions as values, one class a table."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from attune.base.json import Json, JsonObject, loads
from attune.database.pool import Row


class Runtime(StrEnum):
    """What runs an action: a coroutine of Attune, or a child process."""

    BUILTIN = "core.builtin"
    SHELL = "core.shell"
    PYTHON = "core.python"
    NATIVE = "core.native"


class OutputFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"


class Backoff(StrEnum):
    """How the delays before the retries of an action grow."""

    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Overlap(StrEnum):
    """What becomes of a match while an execution of the same rule has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Definition:
    """What all definitions have. `_json` names the fields that are jsonb columns."""

    _json: ClassVar[frozenset[str]] = frozenset()

    id: int
    ref: str
    label: str
    description: str | None
    created: datetime
    updated: datetime

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """The definition of a row of its table."""
        return cls(**{name: _decoded(row[name], name in cls._json) for name in _names(cls)})

    @classmethod
    def from_revision(cls, definition: JsonObject) -> Self:
        """The definition that a revision holds: the row as PostgreSQL's to_jsonb made it."""
        values: dict[str, Any] = {name: definition[name] for name in _names(cls)}
        for name in ("created", "updated"):
            values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Pack(Definition):
    _json: ClassVar[frozenset[str]] = frozenset({"conf_schema", "config", "meta"})

    version: str
    conf_schema: JsonObject
    config: JsonObject
    meta: JsonObject
    tags: list[str]
    runtime_deps: list[str]
    dependencies: list[str]
    is_standard: bool
    storage_path: str


@dataclass(frozen=True, slots=True)
class Trigger(Definition):
    _json: ClassVar[frozenset[str]] = frozenset({"param_schema", "out_schema"})

    pack: int
    pack_ref: str
    enabled: bool
    param_schema: JsonObject
    out_schema: JsonObject


@dataclass(frozen=True, slots=True)
class Action(Definition):
    """`timeout_seconds` None means the worker's default. `retry_delay` is in seconds; `retry_on` holds the states after
    which it is tried again."""

    _json: ClassVar[frozenset[str]] = frozenset({"param_schema", "out_schema"})

    pack: int
    pack_ref: str
    entrypoint: str
    runtime_ref: str
    param_schema: JsonObject
    out_schema: JsonObject
    output_format: str
    timeout_seconds: int | None
    max_retries: int
    retry_delay: float
    retry_backoff: str
    retry_jitter: float
    retry_on: list[str]


@dataclass(frozen=True, slots=True)
class Rule(Definition):
    """`action` and `trigger` are None when what they name was deleted; the refs stay."""

    _json: ClassVar[frozenset[str]] = frozenset({"conditions", "action_params", "trigger_params"})

    pack: int
    pack_ref: str
    action: int | None
    action_ref: str
    trigger: int | None
    trigger_ref: str
    conditions: Json
    action_params: JsonObject
    trigger_params: JsonObject
    enabled: bool
    overlap: str
    is_adhoc: bool
    owner_identity: int | None


def _names(cls: type[Definition]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _decoded(value: Any, is_json: bool) -> Any:
    return loads(value) if is_json else value

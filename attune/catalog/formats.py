"""What the files of a pack may say: every key, its type and its short forms."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from attune.base import refs
from attune.base.errors import Problem
from attune.base.json import pointer
from attune.base.schema import check_schema, is_json_schema, parameters, validate
from attune.catalog.model import Backoff, OutputFormat, Overlap, Runtime

Object = dict[str, Any]
"""A JSON object. pydantic cannot follow our recursive type; what comes from YAML is JSON already."""

Label = Annotated[str, Field(min_length=1, max_length=255)]

_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

RUNNERS = {
    "shell": Runtime.SHELL,
    "python": Runtime.PYTHON,
    "native": Runtime.NATIVE,
    "builtin": Runtime.BUILTIN,
}


def _pack_ref(text: str) -> str:
    if not refs.is_pack_ref(text):
        raise ValueError(f"{text!r} is no pack ref: {refs.PACK_SHAPE}")
    return text


def spelt_out(schema: Any) -> Any:
    """A flat schema with `name: string` written as `name: {type: string}`."""
    if not isinstance(schema, dict) or is_json_schema(schema):
        return schema
    return {name: {"type": entry} if entry in _TYPES else entry for name, entry in schema.items()}


Schema = Annotated[Object, BeforeValidator(spelt_out)]


class File(BaseModel):
    """`schemas` names the keys that hold schemas, `short` the keys that may be written for another."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    schemas: ClassVar[tuple[str, ...]] = ()
    short: ClassVar[dict[str, str]] = {}

    def problems(self) -> Iterator[Problem]:
        """What is wrong though every key has its type, as JSON Pointers."""
        for name in self.schemas:
            schema = getattr(self, name)
            yield from _no_types(schema, f"/{name}") or check_schema(schema, f"/{name}")


def _no_types(schema: Object, where: str) -> list[Problem]:
    """What stands where a type is expected, and is none."""
    if is_json_schema(schema):
        return []
    return [
        Problem(where + pointer((name,)), f"expected a type or a map like {{type: string}}; {_no_type(entry)}")
        for name, entry in schema.items()
        if not isinstance(entry, dict)
    ]


def _no_type(entry: object) -> str:
    close = get_close_matches(str(entry), _TYPES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"types are {', '.join(_TYPES)}"
    return f"{entry!r} is no type; {hint}"


class PackFile(File):
    schemas = ("conf_schema",)

    ref: Annotated[str, AfterValidator(_pack_ref)]
    label: Label = ""
    version: Annotated[str, Field(min_length=1, max_length=50)] = "0.0.0"
    description: str | None = None
    author: str | None = None
    email: str | None = None
    system: bool = False
    conf_schema: Schema = {}
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


class TriggerFile(File):
    schemas = ("parameters", "output")

    ref: str = ""
    label: Label = ""
    description: str | None = None
    enabled: bool = True
    parameters: Schema = {}
    output: Schema = {}


class ActionFile(File):
    schemas = ("parameters", "output")

    ref: str = ""
    label: Label = ""
    description: str | None = None
    entry_point: Annotated[str, Field(min_length=1, max_length=1024)]
    runner_type: Literal["shell", "bash", "sh", "python", "python3", "native", "builtin"] | None = None
    parameters: Schema = {}
    output: Schema = {}
    parameter_delivery: Literal["stdin"] = "stdin"
    parameter_format: Literal["json"] = "json"
    output_format: Annotated[OutputFormat, Field(strict=False)] = OutputFormat.TEXT
    timeout: Annotated[int, Field(ge=1, le=604_800)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=100)] = 0
    retry_delay: Annotated[float, Field(ge=0, le=86_400)] = 10
    retry_backoff: Annotated[Backoff, Field(strict=False)] = Backoff.CONSTANT
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = 0
    retry_on: list[Literal["failed", "timeout", "abandoned"]] = ["failed", "timeout"]

    @property
    def runtime(self) -> Runtime:
        """What runs the action; reading a pack has filled in the runner, by its one name."""
        return RUNNERS[self.runner_type or "shell"]


class RuleFile(File):
    short = {"trigger": "trigger_ref", "action": "action_ref"}

    ref: str = ""
    trigger_ref: str
    action_ref: str
    label: Label = ""
    description: str | None = None
    enabled: bool = True
    overlap: Annotated[Overlap, Field(strict=False)] = Overlap.ALLOW
    conditions: Any = []
    action_params: Object = {}
    trigger_params: Object = {}


def label_of(ref: str) -> str:
    """The name for people of what has none: `Every ten seconds` for `shop.every_ten_seconds`."""
    words = ref.rpartition(".")[2].replace("_", " ").replace("-", " ").strip()
    return (words[:1].upper() + words[1:]) or ref


def full_ref(ref: str, pack_ref: str) -> str:
    """A ref as it stands in a file of a pack, with the pack in front if it names none."""
    return ref if "." in ref else f"{pack_ref}.{ref}"

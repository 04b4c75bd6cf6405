"""Writes the pages in `docs/reference` from the code: `python -m tests.docs.reference`."""

import inspect
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import orjson
from pydantic import BaseModel

import attune
from attune.api import problems
from attune.api.problems import HttpError
from attune.base import errors
from attune.base.errors import AttuneError
from attune.bus.messages import Message
from attune.bus.topology import TOPOLOGY
from attune.catalog.formats import ActionFile, PackFile, RuleFile, TriggerFile
from attune.cli.talk import CommandError
from attune.settings import sections
from attune.telemetry import families
from attune.telemetry.families import Family
from attune.telemetry.histogram import BOUNDS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"

FAMILIES = [one for one in vars(families).values() if isinstance(one, Family)]

FILES: dict[str, type[BaseModel]] = {
    "pack.yaml": PackFile,
    "actions/*.yaml": ActionFile,
    "triggers/*.yaml": TriggerFile,
    "rules/*.yaml": RuleFile,
}

# What a key of a file means; one for itself goes before one for all files.
KEYS = {
    "pack.yaml ref": "the name of the pack, in front of the dot in the refs of all that it holds",
    "ref": "`pack.name`, or the name alone; without, the name of the file",
    "label": "the name for people; without, made of the ref",
    "description": "a text for people",
    "pack.yaml version": "the version of the pack, for people",
    "pack.yaml author": "who wrote it",
    "pack.yaml email": "where they can be reached",
    "pack.yaml system": "that it comes with the platform",
    "pack.yaml conf_schema": "the schema of `config`",
    "pack.yaml config": "what its rules can use as `pack.config`",
    "pack.yaml meta": "whatever tools want to keep",
    "pack.yaml tags": "words to find it by",
    "pack.yaml runtime_deps": "the runtimes that it needs; a note for people",
    "pack.yaml dependencies": "the packs that it needs; a note for people",
    "triggers/*.yaml parameters": "the schema of `trigger_params` of its rules",
    "triggers/*.yaml output": "the schema of the payload of its events",
    "triggers/*.yaml enabled": "whether events may name it",
    "actions/*.yaml entry_point": "the script, in the same folder",
    "actions/*.yaml runner_type": "what runs the script; without, its suffix or that it is executable tells",
    "actions/*.yaml parameters": "the schema of its parameters",
    "actions/*.yaml output": "the schema of what it gives back; a note for people",
    "actions/*.yaml parameter_delivery": "how the script gets its parameters",
    "actions/*.yaml parameter_format": "as what it gets them",
    "actions/*.yaml output_format": "as what its stdout is read into `result.data`",
    "actions/*.yaml timeout": "seconds that it may run; without, `worker.default_timeout`",
    "actions/*.yaml max_retries": "how often it is tried again, at most",
    "actions/*.yaml retry_delay": "seconds before the first retry, at most a day",
    "actions/*.yaml retry_backoff": "how the delays of further retries grow: by the same, in steps, or doubling",
    "actions/*.yaml retry_jitter": "the share, 0 to 1, by which chance makes a delay longer or shorter",
    "actions/*.yaml retry_on": "the states after which it is tried again; `abandoned` only if it may run twice",
    "rules/*.yaml overlap": "while an execution of it has not ended: allow another, skip it, or queue it",
    "rules/*.yaml trigger_ref": "the trigger whose events it waits for; `trigger` means the same",
    "rules/*.yaml action_ref": "the action that it runs; `action` means the same",
    "rules/*.yaml enabled": "whether it is on; `attune rule enable` and `disable` win until this changes",
    "rules/*.yaml conditions": "clauses or an expression; without, every event matches",
    "rules/*.yaml action_params": "the parameters of the action, with templates",
    "rules/*.yaml trigger_params": "the parameters of the trigger, such as a schedule",
}

_SETTINGS = """\
# Settings

A setting comes from, the later winning: its default; the config file (the one that `--config` names, else
`config.toml` in the working directory if it belongs to you, else `~/.config/attune/config.toml`); the variable
`ATTUNE_SECTION__KEY`, such as `ATTUNE_SERVER__PORT`, in which a list is written as JSON; an option of the command
line. A key that is unknown or wrong stops the start. Where everything is kept is no setting but `--data-dir` or
`ATTUNE_DATA_DIR`. [config.toml](../../config.toml) has all of them, to be copied.
"""
_MESSAGES = """\
# Messages

What travels on the bus, with what it carries: ids and refs, whose rows the consumer reads.
[How messages travel](../routing.md) has the queues and the consumers. Around each is an envelope: `message_id`
(UUIDv7), `correlation_id` (of the chain), `causation_id` (the message that caused it), `depth`, `message_type`,
`version`, `timestamp`, `source`. `attune bus trace` shows the way of a chain.
"""
_ERRORS = """\
# Errors

Every error says what is wrong, where, and what to do, and has a `code` that stays. Over HTTP it is a problem document,
see [the HTTP API](../http.md); the command line writes the same words to stderr and ends with a code of
[its own](../cli.md).
"""
_METRICS = """\
# Metrics

What `GET /metrics` tells, in Prometheus's text format; [monitoring](../howto-prometheus.md) shows how to read it and
what to watch. Counters and histograms begin anew with each start. Times are in seconds. The `le` of a histogram is one
of {bounds}, or `+Inf`.

What begins with `process_` or `python_` comes from the library `prometheus_client`: processor time, memory, open files
and the garbage collector of the server's own process, without PostgreSQL and without actions.
"""
_FILES = """\
# Files of a pack

A pack is a folder with a `pack.yaml`; [packs](../packs.md) has the short forms, and tells what happens when a file
changes. A file that has an unknown key, or a value that does not fit, is refused with its
line, and with it the whole pack; `attune check` tells beforehand. Keys without a default are required. What the values
mean is told in [actions](../actions.md), [rules](../rules.md) and [timers](../timers.md); tests of a pack have
[a format of their own](../pack-tests.md).
"""


def settings() -> str:
    """The page on the settings."""
    lines = [_SETTINGS]
    for section, model in sections().items():
        lines += [f"## [{section}]\n", "| Key | Default | |", "|---|---|---|"]
        for name, schema in model.model_json_schema()["properties"].items():
            lines.append(f"| `{name}` | {_json(schema['default'])} | {schema['description']} {_limits(schema)} |")
        lines.append("")
    return _page(lines)


def messages() -> str:
    """The page on the message types."""
    lines = [_MESSAGES]
    for message in TOPOLOGY.messages:
        lines += [f"## {message.__name__}\n", *_message(message), "", "| Field | |", "|---|---|"]
        lines += [f"| `{name}` | {_type(schema)} |" for name, schema in _properties(message)]
        lines.append("")
    return _page(lines)


def error_codes() -> str:
    """The page on the errors."""
    rows = {kind.code: (_status(kind), _meaning(kind)) for kind in errors_of(AttuneError)}
    for status, code in problems._CODE.items():
        rows.setdefault(code, (f"{status.value}", status.phrase))
    lines = [_ERRORS, "| Code | HTTP | |", "|---|---|---|"]
    lines += [f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in sorted(rows.items())]
    return _page(lines)


def pack_files() -> str:
    """The page on the files of packs."""
    lines = [_FILES]
    for file, model in FILES.items():
        lines += [f"## {file}\n", "| Key | | Default | |", "|---|---|---|---|"]
        required = model.model_json_schema().get("required", [])
        for name, schema in _properties(model):
            default = "" if name in required else _json(schema.get("default"))
            lines.append(f"| `{name}` | {_type(schema)} | {default} | {meaning_of(file, name)} |")
        lines.append("")
    return _page(lines)


def metrics() -> str:
    """The page on the metrics."""
    lines = [_METRICS.format(bounds=", ".join(map(str, BOUNDS))), "| Metric | Kind | Labels | |", "|---|---|---|---|"]
    for one in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.text} |")
    return _page(lines)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "messages.md": messages,
    "errors.md": error_codes,
    "metrics.md": metrics,
    "pack-files.md": pack_files,
}


def meaning_of(file: str, key: str) -> str:
    """What a key of a file means. Fails for one that `KEYS` forgets."""
    return KEYS.get(f"{file} {key}") or KEYS[key]


def errors_of(kind: type[AttuneError]) -> Iterator[type[AttuneError]]:
    """Every error that a person can be told of, from the most general on."""
    for module in walk_packages(attune.__path__, "attune."):
        if not module.name.startswith(("attune.sdk", "attune.bundled", "attune.__main__")):
            import_module(module.name)
    yield from _descendants(kind)


def _descendants(kind: type[AttuneError]) -> Iterator[type[AttuneError]]:
    # These two speak for others.
    for child in kind.__subclasses__():
        if "code" in vars(child) and child.__module__.startswith("attune.") and child not in {HttpError, CommandError}:
            yield child
        yield from _descendants(child)


def _meaning(kind: type[AttuneError]) -> str:
    """What an error says of itself, or what the tree at the top of its module says of it."""
    drawn = re.search(rf"─ {kind.__name__} +(.+)", errors.__doc__ or "")
    if drawn:
        return drawn[1]
    text = (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    assert text, f"{kind.__name__} needs a docstring: it stands in docs/reference/errors.md"
    return text[:1].lower() + text[1:]


def _status(kind: type[AttuneError]) -> str:
    if issubclass(kind, errors.StartError):
        return "not over HTTP"
    found = next((problems._STATUS[base] for base in kind.__mro__ if base in problems._STATUS), None)
    return str((found or HTTPStatus.INTERNAL_SERVER_ERROR).value)


def _message(message: type[Message]) -> Iterator[str]:
    keys = ", ".join(f"`{key}`" for key in sorted(message.keys()))
    yield f"`{message.exchange}`, {keys}; version {message.version}."


def _properties(model: type[BaseModel]) -> list[tuple[str, dict[str, Any]]]:
    schema = model.model_json_schema()
    shared = schema.get("$defs", {})
    return [(name, _resolved(value, shared)) for name, value in schema["properties"].items()]


def _resolved(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {**shared[schema["$ref"].rpartition("/")[2]], **schema}
    return schema


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return "a list"
    return {"object": "a map", "null": "null", None: "any"}.get(schema.get("type"), str(schema.get("type")))


def _limits(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."
    if "minimum" in schema and "maximum" in schema:
        return f"From {schema['minimum']:,} to {schema['maximum']:,}."
    return ""


def _json(value: Any) -> str:
    return f"`{orjson.dumps(value).decode()}`"


def _page(lines: list[str]) -> str:
    text = inspect.cleandoc("\n".join(lines))
    return re.sub(r" +\|$", " |", text, flags=re.MULTILINE).replace(" . |", " |") + "\n"


if __name__ == "__main__":
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render())

"""The `result` of an execution: what a process or a coroutine left behind, and how the execution ended by it."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import yaml

from attune.base.json import Json, JsonObject, unstorable
from attune.catalog.model import OutputFormat
from attune.executions.states import Step
from attune.workers.output import clean
from attune.workers.processes import Exit

MAX_DATA = 1_000_000
"""Bytes of output that are parsed, at most."""
MAX_YAML = 200_000
"""The same for YAML, which takes a hundred times as long."""
MAX_TEXT = 64_000
"""Bytes of output that stand in `result.stdout`, at most; the rest is in the log."""

_OF_TEXT = frozenset({"stdout", "stdout_replaced", "stdout_truncated"})
"""What is left out of a result when stdout was read as data."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an execution ended, and its result."""

    step: Step
    result: JsonObject


@dataclass(frozen=True, slots=True)
class Printed:
    """What a process printed: the beginning of stdout, the lengths of both streams, the end of both, and why their
    files do not have all of it."""

    stdout: bytes
    stdout_bytes: int
    stderr_bytes: int
    last_stderr: Sequence[str]
    last_stdout: Sequence[str]
    log_limit: int
    log_failure: str | None = None


class _Unparsable(Exception):
    pass


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: few bytes of them can make more than the memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)


def of_process(ended: Exit, printed: Printed, output_format: OutputFormat, duration_ms: int, timeout: float) -> Ended:
    """The end of an execution whose process ended."""
    result: JsonObject = {"exit_code": ended.code, "duration_ms": duration_ms, "succeeded": False}
    if ended.signal is not None:
        result["signal"] = ended.signal
    result |= _streams(printed)
    if ended.stopped:
        how = stopped(cancelled=not ended.timed_out, duration_ms=duration_ms, timeout=timeout)
        return Ended(how.step, result | how.result)
    if ended.code != 0:
        return Ended(Step.FAIL, result | {"error": _reason(ended, printed)})
    try:
        data = _data(printed, output_format)
    except _Unparsable as error:
        return Ended(Step.FAIL, result | {"error": f"Its output is not {output_format.value}: {error}"})
    if output_format is not OutputFormat.TEXT:
        result = {name: value for name, value in result.items() if name not in _OF_TEXT} | {"data": data}
    return Ended(Step.COMPLETE, result | {"succeeded": True})


def of_coroutine(output: JsonObject, duration_ms: int) -> Ended:
    """The end of an execution whose coroutine returned `output`: an `error` there means that it failed."""
    failed = output.get("error") is not None
    result: JsonObject = {"duration_ms": duration_ms, "succeeded": not failed, **output}
    return Ended(Step.FAIL if failed else Step.COMPLETE, result)


def stopped(*, cancelled: bool, duration_ms: int, timeout: float) -> Ended:
    """The end of an execution whose coroutine was cancelled, by a person or by its deadline."""
    result: JsonObject = {"duration_ms": duration_ms, "succeeded": False}
    if cancelled:
        return Ended(Step.CANCEL, result | {"cancelled": True, "error": "It was cancelled."})
    return Ended(Step.TIME_OUT, result | {"error": f"It ran longer than {timeout:g} s and was stopped."})


def abandoned(ended: Ended) -> Ended:
    """The end of an execution that was stopped because Attune was."""
    result = {name: value for name, value in ended.result.items() if name != "cancelled"}
    return Ended(Step.ABANDON, result | {"error": "Attune was stopped while it ran."})


def unstorable_result(ended: Ended, error: Exception) -> Ended:
    """The same end, without a result that PostgreSQL did not take."""
    what, _ = clean(f"Its result could not be stored: {type(error).__name__}: {error}".encode(errors="replace"))
    return Ended(ended.step, {"succeeded": ended.step is Step.COMPLETE, "error": what})


def failure(error: str) -> Ended:
    """The end of an execution that could not even begin."""
    return Ended(Step.FAIL, {"succeeded": False, "error": error})


def _streams(printed: Printed) -> JsonObject:
    text, replaced = clean(printed.stdout[:MAX_TEXT], cut=printed.stdout_bytes > MAX_TEXT)
    streams: JsonObject = {"stdout": text, "stdout_bytes": printed.stdout_bytes, "stderr_bytes": printed.stderr_bytes}
    if replaced:
        streams["stdout_replaced"] = True
    if printed.stdout_bytes > MAX_TEXT:
        streams["stdout_truncated"] = True
    if printed.stdout_bytes > printed.log_limit:
        streams["stdout_log_truncated"] = True
    if printed.stderr_bytes > printed.log_limit:
        streams["stderr_log_truncated"] = True
    if printed.log_failure is not None:
        streams["log_error"] = f"The log could not be written: {printed.log_failure}."
    return streams


def _reason(ended: Exit, printed: Printed) -> str:
    how = f"killed by {ended.signal}" if ended.signal is not None else f"exit code {ended.code}"
    said = printed.last_stderr or printed.last_stdout[-1:]
    return f"{how}: " + "\n".join(said) if said else how


def _data(printed: Printed, output_format: OutputFormat) -> Json:
    if output_format is OutputFormat.TEXT:
        return None
    limit = MAX_YAML if output_format is OutputFormat.YAML else MAX_DATA
    if printed.stdout_bytes > limit:
        raise _Unparsable(f"{printed.stdout_bytes:,} bytes are more than the {limit:,} that are read")
    data = _parse(printed.stdout, output_format)
    for problem in unstorable(data):
        raise _Unparsable(str(problem))
    return data


def _parse(output: bytes, output_format: OutputFormat) -> Json:
    try:
        match output_format:
            case OutputFormat.JSON:
                return _json(output)
            case OutputFormat.JSONL:
                return [orjson.loads(line) for line in output.splitlines() if line.strip()]
            case _:
                return _yaml(output)
    except orjson.JSONDecodeError as error:
        raise _Unparsable(str(error)) from error


def _json(output: bytes) -> Json:
    """The whole output, or its last line: what comes before may be chatter."""
    try:
        value: Json = orjson.loads(output)
    except orjson.JSONDecodeError:
        lines = output.strip().splitlines()
        if len(lines) < 2:
            raise
        value = orjson.loads(lines[-1])
    return value


def _yaml(output: bytes) -> Json:
    """A date becomes text, a key that is a number too."""
    try:
        value = yaml.load(output, Loader=_PlainLoader)  # noqa: S506 - it is a SafeLoader
        for problem in unstorable(value):
            raise _Unparsable(str(problem))
        plain: Json = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    except RecursionError as error:
        raise _Unparsable("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        # What PyYAML's constructors stumble over comes out as it is: !!bool maybe is a KeyError.
        raise _Unparsable(str(error)) from error
    return plain

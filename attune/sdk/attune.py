"""For actions written in Python: a function whose parameters are those of the action, and whose result is its result.

    from attune import action, log, progress

    @action
    def main(name: str, times: int = 1) -> dict:
        log("greeting", name)
        progress(50, "half way there")
        return {"greetings": ["Hello, " + name] * times}

When the whole file was read, the function is called with the parameters from stdin, or from the command line:
`python greet.py name=Ada times=2`. What it returns is printed as one line of JSON, the last of stdout; with
`output_format: json` it becomes `result.data`. An action fails with `raise SystemExit("why")`, or with any exception.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["action", "log", "progress"]

_USAGE = 2
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a map",
    type(None): "null",
}

_functions: list[Callable[..., Any]] = []
_is_running = False


def action(function: F) -> F:
    """Make a function the action of its file. Elsewhere, as in a test that imports it, it stays a plain function."""
    if function.__module__ == "__main__":
        if _functions:
            _refuse([f"{_functions[0].__name__} and {function.__name__} are both marked with @action; a file has one."])
        _functions.append(function)
        if not _is_running:
            # Nobody waits for the end of the file, as it was started with python: read it again, and wait.
            _functions.clear()
            run_file(function.__code__.co_filename)
            sys.exit()
    return function


def log(*parts: object) -> None:
    """Write a line to stderr, at once. `attune execution logs ID --stderr` shows it."""
    print(*parts, file=sys.stderr, flush=True)  # noqa: T201 - this is how an action talks


def progress(percent: float, message: str = "") -> None:
    """Write a line to stderr that says how far the action is, from 0 to 100."""
    log(f"[{min(max(percent, 0), 100):3.0f}%] {message}".rstrip())


def run_file(path: str) -> None:
    """Run a file as Python would, and then its action, if it marks one."""
    global _is_running  # noqa: PLW0603 - there is one program
    _is_running = True
    main = type(sys)("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than all of this
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - it is what we are for
        if _functions:
            _call(_functions[0])
    except Exception as error:
        _show(error, path)
        sys.exit(1)


def _call(function: Callable[..., Any]) -> None:
    values = _checked(function, _given())
    result = function(**values)
    if hasattr(result, "__await__"):
        import asyncio

        result = asyncio.run(_awaited(result))
    _print(result)


async def _awaited(result: Any) -> Any:
    return await result


def _given() -> dict[str, Any]:
    """The parameters: `name=value` of the command line, else a JSON object on stdin."""
    import json

    if len(sys.argv) > 1:
        return dict(map(_pair, sys.argv[1:]))
    text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read().decode()
    try:
        values = json.loads(text) if text.strip() else {}
    except ValueError as error:
        _refuse([f"stdin is not JSON: {error}."])
    if not isinstance(values, dict):
        _refuse([f"stdin must be a JSON object of parameters, not {_described(values)}."])
    return values


def _pair(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals:
        _refuse([f"{text!r} is no parameter; write name=value."])
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _checked(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for the function. Tells everything that is wrong with them, never their values, and ends."""
    import inspect

    hints = _hints(function)
    signature = inspect.signature(function).parameters.values()
    named = {one.name: one for one in signature if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature)
    problems = [_unknown(name, list(named), function.__name__) for name in given if not takes_any and name not in named]
    for name, one in named.items():
        hint = hints.get(name)
        if name not in given:
            if one.default is one.empty:
                problems.append(f'the parameter "{name}" is missing{f" ({_expected(hint)})" if hint else ""}.')
        elif hint and not _fits(given[name], hint):
            problems.append(f'the parameter "{name}" must be {_expected(hint)}, not {_described(given[name])}.')
    if problems:
        _refuse(problems)
    # JSON knows one kind of number: 2.0 is a whole one.
    return {name: int(value) if hints.get(name) is int else value for name, value in given.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    import typing

    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        # They name types that are only there for the type checker, or that this Python cannot read yet.
        return {}


def _unknown(name: str, known: list[str], function: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else f"; it takes {', '.join(known) or 'none'}."
    return f'{function}() takes no parameter "{name}"{hint}'


def _fits(value: Any, hint: Any) -> bool:
    import typing

    choices = _choices(hint)
    if choices:
        return any(_fits(value, choice) for choice in choices)
    if typing.get_origin(hint) is typing.Literal:
        return any(value == one and type(value) is type(one) for one in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return type(value) is int or (type(value) is float and value.is_integer())
    # What JSON has no type for is the function's own business.
    return kind not in _WORDS or isinstance(value, kind)


def _expected(hint: Any) -> str:
    import typing

    choices = _choices(hint)
    if choices:
        return " or ".join(map(_expected, choices))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return _WORDS.get(typing.get_origin(hint) or hint, str(hint))


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types that a union joins; none for any other type."""
    import typing

    is_union = typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"
    return typing.get_args(hint) if is_union else ()


def _described(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)


def _print(result: object) -> None:
    import json

    try:
        text = json.dumps(result, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        _refuse([f"what it returned cannot be written as JSON: {error}."])
    # On a line of its own, whatever was printed before, and by whom.
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """What JSON has no type for, as what comes close to it."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "__fspath__"):
        return os.fspath(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _refuse(problems: list[str]) -> NoReturn:
    sys.stdout.flush()
    for problem in problems:
        log(f"{os.environ.get('ATTUNE_ACTION') or os.path.basename(sys.argv[0])}: {problem}")  # noqa: PTH119 - as above
    sys.exit(_USAGE)


def _show(error: Exception, path: str) -> None:
    """Show an exception as Python does, from the author's file on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)

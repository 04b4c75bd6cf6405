"""Whether the script of an action can run at all."""

import re
from collections.abc import Iterator
from pathlib import Path

from attune.base.errors import Problem

_LINE = 200
_PYTHON = re.compile(rb"#!.*\bpython[0-9.]*\b")
_SHELL = re.compile(rb"#!.*\b(?:ba|da|z|k)?sh\b")


def script_problems(script: Path, runner: str) -> Iterator[Problem]:
    """What is wrong with a script that is there."""
    try:
        content = script.read_bytes()
    except OSError as error:
        yield Problem(f"{script}:1", f"cannot be read: {error.strerror}")
        return
    yield from _shebang_problems(script, runner, content[:_LINE])
    if runner == "python":
        yield from _syntax_problems(script, content)


def _shebang_problems(script: Path, runner: str, start: bytes) -> Iterator[Problem]:
    for other, pattern in (("python", _PYTHON), ("shell", _SHELL)):
        if runner in {"python", "shell"} and runner != other and pattern.match(start):
            yield Problem(f"{script}:1", f"is written for {other}, but its action has runner_type {runner}")


def _syntax_problems(script: Path, content: bytes) -> Iterator[Problem]:
    try:
        compile(content, str(script), "exec", dont_inherit=True)
    except SyntaxError as error:
        yield Problem(f"{script}:{error.lineno or 1}", f"is not Python: {error.msg}")
    except ValueError as error:
        yield Problem(f"{script}:1", f"is not Python: {error}")

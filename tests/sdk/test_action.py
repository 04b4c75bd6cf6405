"""`from attune import action`: what a person writes who writes an action in Python."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest

import attune
from attune import sdk
from attune.base.json import JsonObject
from attune.catalog.model import OutputFormat, Runtime
from attune.executions.states import Step
from attune.sdk.attune import _checked
from tests.workers.parts import workshop_in

FOLDER = Path(sdk.__file__).parent
GREET = """
from attune import action, log, progress

@action
def main(name: str, times: int = 1) -> dict:
    progress(50, "half way")
    log("greeting", name)
    print("no end of line", end="")
    return {"greetings": [greeting(name)] * times}

def greeting(name):
    return f"Hello, {name}"
"""


def run(
    folder: Path, script: str, *arguments: str, stdin: str = "", direct: bool = False
) -> "subprocess.CompletedProcess[str]":
    """What a script did: started as the worker does, in a Python without packages, or as a person does (`direct`)."""
    path = folder / "script.py"
    path.write_text(script)
    start = [] if direct else ["-S", "-u", str(FOLDER / "__main__.py")]
    env = {"PYTHONPATH": str(FOLDER.parents[1])} if direct else {}
    return subprocess.run(
        [sys.executable, *start, str(path), *arguments],
        input=stdin,
        text=True,
        capture_output=True,
        env=env,
        check=False,
    )


@pytest.mark.parametrize("name", ["attune.py", "__main__.py"])
def test_it_can_be_read_by_python_3_9(name: str) -> None:
    ast.parse((FOLDER / name).read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("name", ["attune.py", "__main__.py"])
def test_it_imports_nothing_that_python_3_9_does_not_bring(name: str) -> None:
    tree = ast.parse((FOLDER / name).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    new = {"tomllib", "zoneinfo._common"}
    assert {module.partition(".")[0] for module in imported} - {"attune"} <= sys.stdlib_module_names - new


def test_the_server_s_own_attune_has_it_too() -> None:
    @attune.action
    def double(number: int) -> int:
        return 2 * number

    # What is not run as a script is a function like any other.
    assert double(4) == 8
    assert callable(attune.log)
    assert callable(attune.progress)


def test_a_function_becomes_an_action_with_parameters_result_progress_and_log_lines(tmp_path: Path) -> None:
    done = run(tmp_path, GREET, stdin='{"name": "Ada", "times": 2}')
    assert done.returncode == 0
    assert done.stderr == "[ 50%] half way\ngreeting Ada\n"
    assert done.stdout == 'no end of line\n{"greetings": ["Hello, Ada", "Hello, Ada"]}\n'


@pytest.mark.parametrize("direct", [True, False])
def test_a_person_tries_it_with_parameters_on_the_command_line(tmp_path: Path, direct: bool) -> None:
    done = run(tmp_path, GREET, "name=Ada", "times=2", direct=direct)
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])) == (0, {"greetings": ["Hello, Ada"] * 2})


def test_an_action_sees_no_more_of_attune_than_its_helper(tmp_path: Path) -> None:
    script = "import attune, sys\nprint(attune.__file__, sys.path[1])\nimport attune.base"
    done = run(tmp_path, script)
    assert done.stdout == f"{FOLDER / 'attune.py'} {FOLDER}\n"
    assert done.stderr.endswith("'attune' is not a package\n")


# A script, and the lines on stderr with which it fails; `…` stands for a traceback's own lines.
FAILURES: list[tuple[str, str, int, list[str]]] = [
    (GREET, "{}", 2, ['script.py: the parameter "name" is missing (text).']),
    (GREET, '{"name": 5}', 2, ['script.py: the parameter "name" must be text, not a whole number.']),
    (
        GREET,
        '{"naem": "Ada", "times": "2"}',
        2,
        [
            'script.py: main() takes no parameter "naem"; did you mean "name"?',
            'script.py: the parameter "name" is missing (text).',
            'script.py: the parameter "times" must be a whole number, not text.',
        ],
    ),
    (GREET, "[]", 2, ["script.py: stdin must be a JSON object of parameters, not a list."]),
    (
        GREET,
        "{",
        2,
        ["script.py: stdin is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."],
    ),
    (
        f"{GREET}\n@action\ndef other(): pass",
        "{}",
        2,
        ["script.py: main and other are both marked with @action; a file has one."],
    ),
    (
        "from attune import action\n@action\ndef main(): return main",
        "{}",
        2,
        ["script.py: what it returned cannot be written as JSON: JSON has no function."],
    ),
    (
        "from attune import action\n@action\ndef main(): raise SystemExit('the shop is closed')",
        "{}",
        1,
        ["the shop is closed"],
    ),
    # Of a traceback the author sees what is the author's.
    (
        "from attune import action\n@action\nasync def main():\n    open('/nowhere')",
        "{}",
        1,
        [
            "Traceback (most recent call last):",
            '  File "script.py", line 4, in main',
            "    open('/nowhere')",
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'",
        ],
    ),
    (
        "1 / 0",
        "{}",
        1,
        [
            "Traceback (most recent call last):",
            '  File "script.py", line 1, in <module>',
            "    1 / 0",
            "ZeroDivisionError: division by zero",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("script", "stdin", "code", "lines"), FAILURES, ids=range(len(FAILURES)))
def test_what_is_wrong_is_told_in_words_for_people(
    tmp_path: Path, script: str, stdin: str, code: int, lines: list[str]
) -> None:
    done = run(tmp_path, script, stdin=stdin)
    # Newer Pythons mark the place in a line of its own.
    said = [line for line in done.stderr.replace(f"{tmp_path}/", "").splitlines() if set(line) - set(" ~^")]
    assert (done.returncode, said) == (code, lines)


# A type, what fits, and what does not.
TYPES: list[tuple[Any, list[Any], list[Any]]] = [
    (str, ["", "a"], [1, None, True]),
    (int, [0, 2.0], [2.5, True, "2", None, float("nan"), float("inf")]),
    (float, [0, 2.5], [True, "2"]),
    (bool, [True], [1, "true"]),
    (list, [[]], [{}, "a"]),
    (list[str], [["a"], [1]], ["a"]),  # what is in a list is the function's business
    (dict[str, Any], [{}], [[]]),
    (Optional[str], ["a", None], [1]),  # noqa: UP045 - as Python 3.9 writes it
    (Union[int, str], [1, "a"], [None, 1.5]),  # noqa: UP007 - as Python 3.9 writes it
    (int | None, [1, None], ["a"]),
    (Literal["a", 1], ["a", 1], ["b", True]),
    (Any, [1, None], []),
    (Path, ["a", 1], []),  # JSON has no such type
    ("Unheard", [1], []),  # a type that is not there when the script runs
]


@pytest.mark.parametrize(("hint", "fitting", "unfit"), TYPES, ids=range(len(TYPES)))
def test_a_parameter_is_checked_against_its_type(hint: Any, fitting: list[Any], unfit: list[Any]) -> None:
    def main(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pass

    main.__annotations__["value"] = hint
    for value in fitting:
        assert _checked(main, {"value": value}) == {"value": value}
    for value in unfit:
        with pytest.raises(SystemExit):
            _checked(main, {"value": value})


def test_a_wrong_value_is_not_repeated(tmp_path: Path) -> None:
    """It may be a secret, and logs are read by many."""
    assert "4711" not in run(tmp_path, GREET, stdin='{"name": 4711}').stderr


RESULTS = """
import dataclasses, datetime, pathlib
from attune import action

@dataclasses.dataclass
class Sale:
    item: str

@action
def main(**anything):
    return [Sale("tea"), datetime.date(2026, 3, 1), pathlib.Path("/tmp"), {3, 1}, (1, None), anything]
"""


def test_what_json_has_no_type_for_becomes_what_comes_close(tmp_path: Path) -> None:
    done = run(tmp_path, RESULTS, stdin='{"a": "ä"}')
    assert json.loads(done.stdout) == [{"item": "tea"}, "2026-03-01", "/tmp", [1, 3], [1, None], {"a": "ä"}]


# A script and what the execution comes to.
EXECUTED: list[tuple[str, JsonObject, Step, str, Any]] = [
    (GREET, {"name": "Ada"}, Step.COMPLETE, "data", {"greetings": ["Hello, Ada"]}),
    (GREET, {}, Step.FAIL, "error", 'exit code 2: tools.script: the parameter "name" is missing (text).'),
    ("from attune import action\n@action\ndef main(): pass", {}, Step.COMPLETE, "data", None),
    # A script that knows nothing of all this is just run.
    ("import json, sys; print(json.dumps([__name__, sys.argv[1:]]))", {}, Step.COMPLETE, "data", ["__main__", []]),
]


@pytest.mark.parametrize(("script", "parameters", "step", "name", "value"), EXECUTED, ids=range(len(EXECUTED)))
async def test_a_worker_runs_it(
    tmp_path: Path, script: str, parameters: JsonObject, step: Step, name: str, value: Any
) -> None:
    async with workshop_in(tmp_path) as workshop:
        ended = await workshop.run(script, runtime=Runtime.PYTHON, parameters=parameters, output=OutputFormat.JSON)
    assert (ended.step, ended.result[name]) == (step, value)

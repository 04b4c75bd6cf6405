"""`attune check`, `attune pack new` and `attune pack test`: for those who write packs, without a server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attune.cli.common import Format
from attune.cli.talk import CommandError, Exit, say

if TYPE_CHECKING:
    from attune.authoring.trials import Trial
    from attune.base.errors import Problem
    from attune.base.verdicts import Clause

Place = Annotated[
    Path, typer.Argument(help="A pack, a folder of packs, or any place in a pack; without, here.", show_default=False)
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How the answer looks.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --output json.")]

_MARKS = {"true": "yes", "false": "no", "error": "error", "skipped": "not looked at"}


def check(path: Place = Path(), output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Tell what is wrong with packs: with file, line and key."""
    from datetime import UTC, datetime

    from attune.authoring.check import check as check_packs

    reports = check_packs(_packs(path), datetime.now(UTC))
    if as_json or output is not Format.TABLE:
        answer = [
            {"pack": str(report.directory), "problems": [_located(problem) for problem in report.problems]}
            for report in reports
        ]
        _data(answer, output)
    else:
        for report in reports:
            for problem in report.problems:
                print(f"{_short(problem.where)}: {problem.what}")  # noqa: T201 - data
            say(f"{_short(str(report.directory))}: {_counted(len(report.problems), 'problem')}")
    if any(report.problems for report in reports):
        raise typer.Exit(Exit.REFUSED)


def new(
    name: Annotated[str, typer.Argument(help="The name of the pack: lower-case letters, digits, '_' and '-'.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where its folder is made; without, here.", show_default=False)
    ] = None,
) -> None:
    """Make a pack with an action, a rule on a schedule and a test."""
    from attune.authoring.scaffold import make_pack

    parent = directory or Path()
    for path in make_pack(name, parent, "UTC"):
        print(path)  # noqa: T201 - data
    made = parent / name
    say(
        f"\nNext:\n\n  attune check {made}\n  attune pack test {made}\n"
        f"  attune serve --packs {parent}\n\nThe rule {name}.greet_often then fires every ten seconds."
    )


def run_cases(path: Place = Path(), output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Run the tests of packs: the cases in their tests/*.yaml."""
    from time import perf_counter

    from attune.authoring.trials import run_tests

    packs = _packs(path)
    started = perf_counter()
    trials = [trial for directory in packs for trial in run_tests(directory)]
    milliseconds = round((perf_counter() - started) * 1000)
    failed = sum(1 for trial in trials if trial.differences)
    if not trials:
        raise CommandError("There are no tests: write some in tests/NAME.yaml of the pack.", Exit.USAGE)
    if as_json or output is not Format.TABLE:
        _data([_as_json(trial) for trial in trials], output)
    else:
        for trial in trials:
            for line in _lines(trial):
                print(line)  # noqa: T201 - data
        say(f"{_counted(len(trials), 'case')}, {failed} failed, {milliseconds} ms")
    if failed:
        raise typer.Exit(Exit.FAILED)


def _packs(path: Path) -> list[Path]:
    from attune.authoring.library import find_packs
    from attune.base.errors import NotFound

    try:
        return find_packs(path)
    except NotFound as error:
        raise CommandError(error.message, Exit.USAGE) from error


def _data(value: Any, output: Format) -> None:
    if output is Format.YAML:
        import yaml

        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")  # noqa: T201 - data
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - data


def _located(problem: "Problem") -> dict[str, Any]:
    file, colon, line = problem.where.rpartition(":")
    is_line = bool(colon) and line.isdecimal()
    return {"file": file if is_line else problem.where, "line": int(line) if is_line else None, "problem": problem.what}


def _as_json(trial: "Trial") -> dict[str, Any]:
    clause = None if trial.verdict is None or trial.verdict.clause is None else trial.verdict.clause.as_json()
    return {
        "name": trial.name,
        "where": trial.where,
        "rule": trial.rule,
        "passed": not trial.differences,
        "differences": [
            {"what": one.what, "expected": one.expected, "actual": one.actual} for one in trial.differences
        ],
        "conditions": clause,
    }


def _lines(trial: "Trial") -> Iterator[str]:
    yield f"{'FAILED' if trial.differences else 'ok':<8}{_short(trial.where)}  {trial.name}"
    for one in trial.differences:
        yield f"        {one.what}"
        yield f"            expected  {one.expected}"
        yield f"            actual    {one.actual}"
    if trial.differences and trial.verdict is not None and trial.verdict.clause is not None:
        yield f"        conditions of {trial.rule}"
        yield from _clause_lines(trial.verdict.clause, 3)


def _clause_lines(clause: "Clause", depth: int) -> Iterator[str]:
    line = f"{'    ' * depth}{_MARKS[clause.outcome]:<14}{clause.text}"
    if clause.has_actual:
        line += "   (it is missing)" if clause.actual_missing else f"   (it is {json.dumps(clause.actual)})"
    yield line
    if clause.error:
        yield f"{'    ' * (depth + 1)}{clause.error}"
    for inner in clause.clauses:
        yield from _clause_lines(inner, depth + 1)


def _short(place: str) -> str:
    """A path as a person would type it here."""
    return place.removeprefix(f"{Path.cwd()}/")


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"

"""SQL stands with the owner of its tables, in modules of `queries`, where it can be found and its plan be tested."""

import ast
import re
from pathlib import Path

import pytest

import attune

ROOT = Path(attune.__file__).parent

STATEMENT = re.compile(
    r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|BEGIN|COMMIT|ROLLBACK|SET|LOCK|EXPLAIN"
    r"|(CREATE|DROP|ALTER) [A-Z]+)\b"
)

# The package that owns the database, and what belongs to no table.
ELSEWHERE = {
    "app.py": {"SELECT 1"},
    "bench/surroundings.py": {'CREATE DATABASE "', 'DROP DATABASE "'},
    "bus/bus.py": {"BEGIN", "ROLLBACK"},
    "bus/transaction.py": {"COMMIT"},
}


def statements(path: Path) -> set[str]:
    """The SQL statements in the strings of a module."""
    strings = (
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in strings if STATEMENT.match(text)}


def test_sql_stands_in_queries_and_nowhere_else() -> None:
    found = {
        str(path.relative_to(ROOT)): statements(path)
        for path in ROOT.rglob("*.py")
        if path.stem.split("_")[-1] != "queries" and ROOT / "database" not in path.parents
    }

    assert {name: texts for name, texts in found.items() if texts} == ELSEWHERE


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("SELECT id FROM attune.rule", True),
        ("\n    WITH new AS (INSERT INTO attune.event …)", True),
        ("DELETE FROM attune.rule", True),
        ("ALTER TABLE attune.rule", True),
        ("Select a rule.", False),
        ("SELECTED", False),
        ("Updates a rule", False),
    ],
)
def test_statements_are_recognised(text: str, is_sql: bool) -> None:
    assert bool(STATEMENT.match(text)) is is_sql


def test_nobody_but_the_pool_uses_transactions_of_the_library_that_leaks_them() -> None:
    """`databases` loses its connection when a task is cancelled inside one of its transactions."""
    importing = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "databases" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "databases")
    }

    assert importing == {"database/pool.py"}

"""Trap T-77: a word that the code writes, and that the CHECK of its column does not know."""

import re
from collections.abc import Iterable
from typing import get_args

import pytest

from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.catalog.model import Backoff, OutputFormat, Overlap, Runtime
from attune.catalog.queries import Kind
from attune.database.pool import Database
from attune.executions.retries import RETRYABLE
from attune.people.model import InquiryStatus

WORDS: dict[str, Iterable[str]] = {
    "action.output_format": OutputFormat,
    "action.retry_backoff": Backoff,
    "action.retry_on": RETRYABLE,
    "action.runtime_ref": Runtime,
    "enforcement.status": EnforcementStatus,
    "execution.status": ExecutionStatus,
    "inquiry.status": InquiryStatus,
    "revision.kind": get_args(Kind),
    "rule.overlap": Overlap,
    "streak.kind": ("rule", "action"),
    "trace.outcome": ("done", "retry", "dead"),
}


async def checked(database: Database) -> dict[str, set[str]]:
    """The words that columns take, by table and column."""
    rows = await database.fetch_all(
        """
        SELECT table_.relname AS place, attribute.attname AS name, pg_get_constraintdef(c.oid) AS definition
          FROM pg_constraint c
          JOIN pg_class table_ ON table_.oid = c.conrelid
          JOIN pg_attribute attribute ON attribute.attrelid = c.conrelid AND attribute.attnum = ANY(c.conkey)
         WHERE c.contype = 'c' AND c.connamespace = 'attune'::regnamespace AND NOT table_.relispartition
        """
    )
    found = {f"{row['place']}.{row['name']}": _words(row["definition"]) for row in rows}
    return {column: words for column, words in found.items() if words}


def _words(definition: str) -> set[str]:
    return {word for text in re.findall(r"'([^']*)'", definition) for word in text.strip("{}").split(",")}


@pytest.mark.parametrize("column", WORDS)
async def test_t77_a_column_takes_every_word_that_the_code_writes_and_no_other(database: Database, column: str) -> None:
    assert (await checked(database))[column] == {str(word) for word in WORDS[column]}


async def test_t77_the_words_of_every_column_are_known(database: Database) -> None:
    assert (await checked(database)).keys() == WORDS.keys()

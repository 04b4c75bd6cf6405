"""The small parts: identifiers, columns, addresses, pages."""

from typing import Any

import asyncpg
import pytest

from attune.base.errors import StartError
from attune.database.arrays import grouped, nullable
from attune.database.connecting import check_version, embedded_url, psql_environment
from attune.database.ids import uuid7
from attune.database.paging import COUNTED, Where, Window, fetch_page
from attune.database.pool import Database


def test_ids_are_of_version_7_differ_and_grow_with_time() -> None:
    ids = [uuid7() for _ in range(10_000)]

    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert len(set(ids)) == len(ids)
    milliseconds = [one.int >> 80 for one in ids]
    assert milliseconds == sorted(milliseconds)


def test_rows_are_grouped_in_the_order_of_their_first_appearance() -> None:
    assert grouped([3, 1, 4, 1, 5, 9, 2, 6], lambda number: number % 2) == {1: [3, 1, 1, 5, 9], 0: [4, 2, 6]}


async def test_a_column_without_values_costs_nothing_and_is_null(database: Database) -> None:
    assert (nullable([None, None]), nullable([None, 1]), nullable([])) == ([], [None, 1], [])
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT * FROM unnest($1::int[], $2::text[]) AS new (a, b)", [1, 2], nullable([None, None])
        )
    assert [tuple(row.values()) for row in rows] == [(1, None), (2, None)]


# A URL, and the variables for psql.
URLS: list[tuple[str, dict[str, str]]] = [
    (
        "postgresql://me:p%40ss@db.example.org:5433/attune?sslmode=require",
        {
            "PGHOST": "db.example.org",
            "PGPORT": "5433",
            "PGUSER": "me",
            "PGPASSWORD": "p@ss",
            "PGDATABASE": "attune",
            "PGSSLMODE": "require",
        },
    ),
    ("postgresql:///attune?host=/run/pg&port=5432", {"PGHOST": "/run/pg", "PGPORT": "5432", "PGDATABASE": "attune"}),
    ("postgresql://localhost/attune?application_name=x", {"PGHOST": "localhost", "PGDATABASE": "attune"}),
]


@pytest.mark.parametrize(("url", "variables"), URLS)
def test_psql_is_told_by_variables_where_the_database_is(url: str, variables: dict[str, str]) -> None:
    assert psql_environment(url) == variables


def test_the_address_of_the_embedded_server_leads_back_to_its_variables() -> None:
    variables = {"PGUSER": "postgres", "PGDATABASE": "attune", "PGHOST": "/tmp/a b/é", "PGPORT": "5432"}

    assert psql_environment(embedded_url(variables)) == variables


def test_what_is_no_url_is_refused_naming_the_setting() -> None:
    with pytest.raises(StartError, match=r"database\.url is no URL"):
        psql_environment("postgresql://host:port/attune")


async def test_a_server_that_is_new_enough_is_taken(database: Database) -> None:
    async with database.acquire() as connection:
        await check_version(connection)


# Pages


@pytest.fixture(scope="module")
async def numbers(dsn: str) -> Any:
    """A table with the numbers from 1 to 25, and one with more than are counted."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        f"CREATE TABLE few AS SELECT generate_series(1, 25) AS n; "
        f"CREATE TABLE many AS SELECT generate_series(1, {COUNTED + 500}) AS n; ANALYZE few; ANALYZE many"
    )
    yield connection
    await connection.execute("DROP TABLE few; DROP TABLE many")
    await connection.close()


# A window, and the rows of 1 to 25 in it in ascending and in descending order.
WINDOWS = [
    (Window(10), range(1, 11), range(25, 15, -1)),
    (Window(10, offset=20), range(21, 26), range(5, 0, -1)),
    (Window(10, offset=30), (), ()),
    (Window(25), range(1, 26), range(25, 0, -1)),
    (Window(10, after=20), range(21, 26), range(19, 9, -1)),
    (Window(10, after=1000), (), range(25, 15, -1)),
]


@pytest.mark.parametrize(("window", "ascending", "descending"), WINDOWS)
async def test_a_page_holds_the_rows_of_its_window(
    numbers: Any, window: Window, ascending: Any, descending: Any
) -> None:
    for is_descending, expected in ((False, ascending), (True, descending)):
        page = await fetch_page(numbers, "n", "few", Where(), window, cursor="n", descending=is_descending)

        assert [row["n"] for row in page.rows] == [*expected]
        assert (page.total, page.total_is_exact) == (25, True)
        last = 1 if is_descending else 25
        assert page.has_next is (bool(expected) and expected[-1] != last)


async def test_conditions_hold_for_rows_and_totals(numbers: Any) -> None:
    where = Where()
    where.add("n BETWEEN {} AND {}", 5, 20)
    where.add_if("n <> {}", 7)
    where.add_if("n <> {}", None)

    page = await fetch_page(numbers, "n", "few", where, Window(3, after=5), cursor="n", descending=False)

    assert ([row["n"] for row in page.rows], page.total, page.has_next) == ([6, 8, 9], 15, True)


async def test_a_total_of_many_is_an_estimate_unless_it_is_to_be_exact(numbers: Any) -> None:
    estimated = await fetch_page(numbers, "n", "many", Where(), Window(1), cursor="n", descending=False)
    exact = await fetch_page(numbers, "n", "many", Where(), Window(1, exact=True), cursor="n", descending=False)

    assert (exact.total, exact.total_is_exact) == (COUNTED + 500, True)
    assert estimated.total_is_exact is False
    assert estimated.total > COUNTED

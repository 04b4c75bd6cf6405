"""One commit for all who wait at the same moment; each of them sees only what became of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from attune.database.group_commit import GroupCommit
from attune.database.pool import Connection, Database, DatabaseUnavailable
from tests.support.waiting import eventually


class Writing:
    """A writer, on a table of numbers of which none may be negative."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.turns = anyio.Semaphore(1)
        self.writer: GroupCommit[Connection] = GroupCommit(self.transaction, self.turn)
        self.batches: list[list[int]] = []

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self.turns:
            yield

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self.database.acquire() as connection:
            await connection.execute("BEGIN")
            try:
                yield connection
            except BaseException:
                with suppress(Exception):
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def write(self, connection: Connection, numbers: Sequence[int]) -> Sequence[tuple[int, int]]:
        """The number and its transaction."""
        self.batches.append(list(numbers))
        rows = await connection.fetch(
            "INSERT INTO number SELECT unnest($1::int[]) RETURNING number, pg_current_xact_id()::text::bigint AS xact",
            numbers,
        )
        return [(row["number"], row["xact"]) for row in rows]

    async def written(self) -> list[int]:
        return [row["number"] for row in await self.database.fetch_all("SELECT number FROM number ORDER BY number")]

    async def submit(self, number: int, results: dict[int, Any]) -> None:
        try:
            results[number] = await self.writer.submit(self.write, number)
        except Exception as error:
            results[number] = error

    async def submit_all(self, numbers: Sequence[int]) -> dict[int, Any]:
        """What becomes of numbers that wait at the same moment."""
        results: dict[int, Any] = {}
        async with anyio.create_task_group() as tasks, self.turns:
            for number in numbers:
                tasks.start_soon(self.submit, number, results)
            await anyio.wait_all_tasks_blocked()
        return results

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.writer.run)
            yield
            self.writer.stop()


@pytest.fixture
async def writing(database: Database) -> Writing:
    async with database.acquire() as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS number (number int CHECK (number >= 0)); DELETE FROM number"
        )
    return Writing(database)


async def test_what_waits_at_the_same_moment_is_one_commit_in_the_order_of_submission(writing: Writing) -> None:
    async with writing.running():
        results = await writing.submit_all(range(100))

    assert writing.batches == [list(range(100))]
    assert [results[number][0] for number in range(100)] == list(range(100))
    assert len({xact for _, xact in results.values()}) == 1
    assert await writing.written() == list(range(100))


async def test_different_operations_share_a_commit(writing: Writing) -> None:
    results: list[Any] = []

    async def other(connection: Connection, texts: Sequence[str]) -> Sequence[Any]:
        xact = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        return [(text, xact) for text in texts]

    async def submit(text: str) -> None:
        results.append(await writing.writer.submit(other, text))

    async with writing.running(), anyio.create_task_group() as tasks, writing.turns:
        tasks.start_soon(submit, "a")
        numbers: dict[int, Any] = {}
        tasks.start_soon(writing.submit, 1, numbers)
        tasks.start_soon(submit, "b")
        await anyio.wait_all_tasks_blocked()

    assert [text for text, _ in results] == ["a", "b"]
    assert {xact for _, xact in results} == {numbers[1][1]}


async def test_a_commit_has_a_bounded_number_of_writes(writing: Writing) -> None:
    async with writing.running():
        results = await writing.submit_all(range(1_200))

    assert [len(batch) for batch in writing.batches] == [500, 500, 200]
    assert len(results) == 1_200


async def test_one_that_fails_does_not_fail_its_neighbours(writing: Writing) -> None:
    async with writing.running():
        results = await writing.submit_all([1, 2, -3, 4, -5])
        after = await writing.submit_all([6])

    assert await writing.written() == [1, 2, 4, 6]
    assert {number: type(result).__name__ for number, result in results.items()} == {
        1: "tuple",
        2: "tuple",
        -3: "CheckViolationError",
        4: "tuple",
        -5: "CheckViolationError",
    }
    assert after[6][0] == 6


async def test_an_operation_that_forgets_a_result_fails_and_writes_nothing(writing: Writing) -> None:
    async def forgetful(connection: Connection, numbers: Sequence[int]) -> Sequence[int]:
        await writing.write(connection, numbers)
        return []

    async with writing.running():
        with pytest.raises(ValueError, match="shorter"):
            await writing.writer.submit(forgetful, 1)
    assert await writing.written() == []


async def test_when_the_database_is_away_all_are_told_at_once_and_nobody_tries_alone(writing: Writing) -> None:
    tries = []

    async def gone(connection: Connection, numbers: Sequence[int]) -> Sequence[int]:
        tries.append(len(numbers))
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return numbers

    errors: list[DatabaseUnavailable] = []

    async def submit(number: int) -> None:
        with pytest.raises(DatabaseUnavailable) as error:
            await writing.writer.submit(gone, number)
        errors.append(error.value)

    async with writing.running():
        async with anyio.create_task_group() as tasks, writing.turns:
            for number in range(20):
                tasks.start_soon(submit, number)
            await anyio.wait_all_tasks_blocked()
        results = await writing.submit_all([1])

    assert (tries, len(errors)) == ([20], 20)
    assert results[1][0] == 1


async def test_when_the_database_goes_while_each_has_its_own_commit_the_rest_is_told(writing: Writing) -> None:
    tries = []

    async def gone(connection: Connection, numbers: Sequence[int]) -> Sequence[int]:
        tries.append(list(numbers))
        if len(numbers) > 1:
            raise ZeroDivisionError
        if numbers == [2]:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return numbers

    results: dict[int, str] = {}

    async def submit(number: int) -> None:
        try:
            results[number] = str(await writing.writer.submit(gone, number))
        except DatabaseUnavailable:
            results[number] = "unavailable"

    async with writing.running(), anyio.create_task_group() as tasks, writing.turns:
        for number in (1, 2, 3, 4):
            tasks.start_soon(submit, number)
        await anyio.wait_all_tasks_blocked()

    assert tries == [[1, 2, 3, 4], [1], [2]]
    assert results == {1: "1", 2: "unavailable", 3: "unavailable", 4: "unavailable"}


async def test_one_who_is_cancelled_while_waiting_disturbs_nobody(writing: Writing) -> None:
    results: dict[int, Any] = {}

    async def impatient() -> None:
        with anyio.move_on_after(0):
            await writing.submit(2, results)

    async with writing.running(), anyio.create_task_group() as tasks, writing.turns:
        tasks.start_soon(writing.submit, 1, results)
        tasks.start_soon(impatient)
        tasks.start_soon(writing.submit, 3, results)
        await anyio.wait_all_tasks_blocked()

    assert results.keys() == {1, 3}
    assert {1, 3} <= set(await writing.written())


async def test_stopping_writes_what_waits_and_then_refuses(writing: Writing) -> None:
    results: dict[int, Any] = {}
    async with anyio.create_task_group() as tasks, writing.turns:
        tasks.start_soon(writing.writer.run)
        for number in range(600):
            tasks.start_soon(writing.submit, number, results)
        await anyio.wait_all_tasks_blocked()
        writing.writer.stop()
    assert len(await writing.written()) == 600
    assert not any(isinstance(result, Exception) for result in results.values())
    with pytest.raises(DatabaseUnavailable, match="Attune is stopping"):
        await writing.writer.submit(writing.write, 601)


async def test_cancelling_the_writer_finishes_the_commit_under_way_and_tells_the_others(writing: Writing) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow(connection: Connection, numbers: Sequence[int]) -> Sequence[Any]:
        begun.set()
        await go_on.wait()
        return await writing.write(connection, numbers)

    results: dict[int, Any] = {}

    async def first() -> None:
        results[1] = await writing.writer.submit(slow, 1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        async with anyio.create_task_group() as running:
            running.start_soon(writing.writer.run)
            await begun.wait()
            tasks.start_soon(writing.submit, 2, results)
            await anyio.wait_all_tasks_blocked()
            running.cancel_scope.cancel()
            go_on.set()

    assert results[1][0] == 1
    assert isinstance(results[2], DatabaseUnavailable)
    assert await writing.written() == [1]


async def test_what_comes_before_its_turn_goes_in(writing: Writing) -> None:
    results: dict[int, Any] = {}
    async with writing.running(), anyio.create_task_group() as tasks:
        async with writing.turns:
            tasks.start_soon(writing.submit, 1, results)
            await anyio.wait_all_tasks_blocked()
            assert writing.batches == []
            tasks.start_soon(writing.submit, 2, results)
            await anyio.wait_all_tasks_blocked()
        await eventually(lambda: len(results) == 2)

    assert writing.batches == [[1, 2]]

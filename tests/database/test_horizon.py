"""A reader of a table whose ids commit out of order sees every row, and knows when it has seen all."""

from collections.abc import AsyncIterator
from random import Random

import asyncpg
import pytest

from attune.database import horizon
from attune.database.horizon import Horizon
from attune.database.pool import Database

TABLES = ("event", "execution")


@pytest.fixture
async def writers(dsn: str) -> AsyncIterator[list[asyncpg.Connection]]:
    connections = [await asyncpg.connect(dsn) for _ in range(4)]
    yield connections
    for connection in connections:
        await connection.close()


class Reader:
    """Reads what is new each time, and keeps what it has seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.horizon: Horizon | None = None
        self.seen: list[int] = []

    async def look(self) -> list[int]:
        """The ids that it had not seen."""
        async with self._database.acquire() as connection:
            if self.horizon is None:
                self.horizon = await horizon.now(connection, TABLES)
                return []
            before = self.horizon
            self.horizon = await horizon.advance(connection, TABLES, before)
            rows = await connection.fetch("SELECT id FROM attune.event WHERE id > $1", before.settled[0])
        new = sorted({row["id"] for row in rows} - set(self.seen))
        self.seen += new
        return new


async def begin(writer: asyncpg.Connection) -> int:
    """The id of an event in a transaction that has not ended."""
    await writer.execute("BEGIN")
    return await write(writer)


async def write(writer: asyncpg.Connection) -> int:
    number: int = await writer.fetchval(
        "INSERT INTO attune.event (trigger, trigger_ref, source_ref, correlation_id, depth, created)"
        " VALUES (1, 'shop.sold', 'test', gen_random_uuid(), 0, now()) RETURNING id"
    )
    return number


async def test_a_row_that_commits_after_one_with_a_higher_id_is_seen(
    database: Database, writers: list[asyncpg.Connection]
) -> None:
    reader, (slow, fast, *_) = Reader(database), writers
    await reader.look()

    late = await begin(slow)
    early = await write(fast)
    assert late < early
    assert await reader.look() == [early]
    # However often it looks, and whatever else happens: it does not believe that this was all.
    for _ in range(3):
        another = await write(fast)
        assert await reader.look() == [another]
        assert reader.horizon is not None
        assert reader.horizon.settled[0] < late
    await slow.execute("COMMIT")

    assert await reader.look() == [late]


async def test_what_was_seen_is_not_read_for_ever(database: Database, writers: list[asyncpg.Connection]) -> None:
    reader = Reader(database)
    await reader.look()
    newest = [await write(writers[0]) for _ in range(5)][-1]

    await reader.look()
    await reader.look()

    assert reader.horizon is not None
    assert (reader.horizon.settled[0], reader.horizon.is_settled) == (newest, True)


async def test_an_id_that_was_rolled_back_is_not_waited_for(
    database: Database, writers: list[asyncpg.Connection]
) -> None:
    reader = Reader(database)
    await reader.look()
    gone = await begin(writers[0])
    await reader.look()
    await writers[0].execute("ROLLBACK")

    assert (await reader.look(), await reader.look()) == ([], [])
    assert reader.horizon is not None
    assert (reader.horizon.settled[0], reader.horizon.is_settled) == (gone, True)


async def test_a_transaction_that_has_drawn_nothing_keeps_nobody_from_being_done(
    database: Database, writers: list[asyncpg.Connection]
) -> None:
    reader = Reader(database)
    await reader.look()
    await writers[0].execute("BEGIN; SELECT 1")

    await reader.look()

    assert reader.horizon is not None
    assert reader.horizon.is_settled
    # And what it then draws is seen.
    event = await write(writers[0])
    assert await reader.look() == []
    await writers[0].execute("COMMIT")
    assert await reader.look() == [event]


async def test_the_first_row_of_a_table_is_seen(database: Database, writers: list[asyncpg.Connection]) -> None:
    """A sequence that was never drawn from calls its first number its last one as well."""
    await writers[0].execute("TRUNCATE attune.event RESTART IDENTITY")
    reader = Reader(database)
    await reader.look()

    event = await write(writers[0])

    assert event == 1
    assert await reader.look() == [event]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_order_every_row_is_seen(
    database: Database, writers: list[asyncpg.Connection], seed: int
) -> None:
    random, reader = Random(seed), Reader(database)
    await reader.look()
    begun: dict[asyncpg.Connection, list[int]] = {}
    committed: set[int] = set()
    for _ in range(150):
        writer = random.choice(writers)
        step = random.choice(["look", "draw", "draw", "end"])
        if step == "look":
            await reader.look()
            assert committed <= set(reader.seen), f"seed {seed}"
        elif step == "draw":
            number = await (write if writer in begun else begin)(writer)
            begun.setdefault(writer, []).append(number)
        elif writer in begun:
            commits, ended = random.random() < 0.8, begun.pop(writer)
            await writer.execute("COMMIT" if commits else "ROLLBACK")
            committed.update(ended if commits else ())
    await reader.look()

    assert set(reader.seen) == committed, f"seed {seed}"
    assert len(reader.seen) == len(set(reader.seen))

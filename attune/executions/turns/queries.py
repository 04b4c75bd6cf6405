"""The statements on `attune.rule_turn` and `attune.rule_queue`."""

from collections.abc import Mapping, Sequence

from attune.database.pool import Connection


async def lock_turns(connection: Connection, rules: Sequence[int]) -> dict[int, int | None]:
    """Which execution has the turn of each of `rules`, which come in the order of their ids. Nobody else changes that
    until this transaction ends."""
    rows = await connection.fetch(
        """
        INSERT INTO attune.rule_turn AS turn (rule) SELECT * FROM unnest($1::bigint[])
            ON CONFLICT (rule) DO UPDATE SET rule = turn.rule
        RETURNING rule, execution
        """,
        rules,
    )
    return {row["rule"]: row["execution"] for row in rows}


async def lock_turns_of(connection: Connection, executions: Sequence[int]) -> dict[int, int]:
    """The rules whose turns some executions have, and which has it. Nobody else changes that until this transaction
    ends."""
    rows = await connection.fetch(
        "SELECT rule, execution FROM attune.rule_turn WHERE execution = ANY($1::bigint[]) ORDER BY rule FOR UPDATE",
        executions,
    )
    return {row["rule"]: row["execution"] for row in rows}


async def give_turn(connection: Connection, rule: int, execution: int | None) -> None:
    """Give the turn of a rule, which is locked, to an execution, or (None) to nobody."""
    if execution is None:
        await connection.execute("DELETE FROM attune.rule_turn WHERE rule = $1", rule)
    else:
        await connection.execute("UPDATE attune.rule_turn SET execution = $2 WHERE rule = $1", rule, execution)


async def waiting_for_turns(connection: Connection, rules: Sequence[int]) -> dict[int, int]:
    """How many executions wait for the turns of those of `rules` for which some do."""
    rows = await connection.fetch(
        "SELECT rule, count(*) AS waiting FROM attune.rule_queue WHERE rule = ANY($1::bigint[]) GROUP BY rule", rules
    )
    return {row["rule"]: row["waiting"] for row in rows}


async def wait_for_turns(connection: Connection, waiting: Mapping[int, int]) -> None:
    """Let executions wait for the turns of their rules."""
    await connection.execute(
        "INSERT INTO attune.rule_queue (execution, rule) SELECT * FROM unnest($1::bigint[], $2::bigint[])",
        [*waiting],
        [*waiting.values()],
    )


async def stop_waiting(connection: Connection, executions: Sequence[int]) -> None:
    """Let executions not wait for their turn any more."""
    await connection.execute("DELETE FROM attune.rule_queue WHERE execution = ANY($1::bigint[])", executions)


async def take_waiting(connection: Connection, rule: int) -> int | None:
    """The execution that waits longest for the turn of a rule, which waits no more."""
    execution: int | None = await connection.fetchval(
        """
        DELETE FROM attune.rule_queue
         WHERE rule = $1 AND execution = (SELECT min(execution) FROM attune.rule_queue WHERE rule = $1)
        RETURNING execution
        """,
        rule,
    )
    return execution

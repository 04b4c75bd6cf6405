"""The limit that the bench compares with: the statements of the pipeline, with the arguments that they take."""

import asyncpg

from attune.bench.limit import BATCH, Subjects, _Batch


async def test_a_batch_of_the_limit_ends_as_many_executions_as_the_pipeline_would(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await _Batch(connection, Subjects(1, "bench.happening", 1, "bench.rule", 1, "core.noop", 1)).run()

        ended = await connection.fetchval("SELECT count(*) FROM attune.execution WHERE status = 'completed'")
        left = await connection.fetchval("SELECT count(*) FROM attune.delivery")
    finally:
        await connection.close()
    assert (ended, left) == (BATCH, 0)

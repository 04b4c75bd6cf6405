"""The bus: a durable queue in the database with a fast path in memory."""

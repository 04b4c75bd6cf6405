"""The tests here share a database."""

import pytest

from attune.database.pool import Database


@pytest.fixture
def database(shared_database: Database) -> Database:
    return shared_database

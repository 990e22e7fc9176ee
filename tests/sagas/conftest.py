"""A database with the stage's tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sagas.stage import make_tables
from torghut.storage.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, pool_size=8)
    make_tables(database)
    yield database
    database.close()

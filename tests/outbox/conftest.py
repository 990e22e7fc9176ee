"""A database with what production has, and nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.conftest import make_rig, shared_sim, sim
from torghut.storage.database import Database

__all__ = ["database", "make_rig", "shared_sim", "sim"]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, pool_size=24)
    yield database
    database.close()

"""What every test may use: see `tests.postgres` for the database fixtures."""

from __future__ import annotations

from tests.postgres import (
    database_url,
    durable_database_url,
    empty_database_url,
    postgres_server,
    postgres_url,
    pytest_configure,
    pytest_terminal_summary,
    pytest_unconfigure,
    session_database_url,
)

__all__ = [
    "database_url",
    "durable_database_url",
    "empty_database_url",
    "postgres_server",
    "postgres_url",
    "pytest_configure",
    "pytest_terminal_summary",
    "pytest_unconfigure",
    "session_database_url",
]

"""The database fixtures give each test a database of its own."""

from __future__ import annotations

import psycopg


def _execute(url: str, statement: str) -> object:
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        row = connection.execute(statement)
        return row.fetchone()[0] if row.description else None  # type: ignore[index]


def test_an_empty_database_is_new_each_time_part_one(empty_database_url: str) -> None:
    _execute(empty_database_url, "CREATE TABLE only_here (n int)")


def test_an_empty_database_is_new_each_time_part_two(empty_database_url: str) -> None:
    assert _execute(empty_database_url, "SELECT to_regclass('only_here') IS NULL") is True


def test_the_server_address_is_a_superusers(postgres_url: str) -> None:
    assert _execute(postgres_url, "SELECT current_setting('is_superuser')") == "on"


def test_a_database_is_migrated(database_url: str) -> None:
    assert _execute(database_url, "SELECT to_regclass('trade_decisions') IS NOT NULL") is True


def test_the_durable_server_has_the_settings_of_production(durable_database_url: str) -> None:
    assert _execute(durable_database_url, "SELECT current_setting('fsync')") == "on"
    assert _execute(durable_database_url, "SELECT to_regclass('trade_decisions') IS NOT NULL")

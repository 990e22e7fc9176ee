"""The project's SQL, straight to libpq: what SQLAlchemy does for it, without SQLAlchemy's time.

    storage functions ─▶ Session.execute(text(…), values) ─▶ prepared statement ─▶ rows

A simulated seed is some two hundred statements of a tenth of a millisecond each; the layers between
would take longer than Postgres. Nothing of the SQL is changed: text, values, types and errors are
those of production, which `test_driver.py` shows by running seeds through both.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError

_NAME = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Result:
    """The rows of one statement, as a text statement's of SQLAlchemy."""

    __slots__ = ("_rows", "returns_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int, returns_rows: bool) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self.returns_rows = returns_rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def one_or_none(self) -> Any:
        return self.one() if self._rows else None

    def scalars(self) -> list[Any]:
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        return self.one()[0] if self._rows else None


class Session:
    """One connection; statements are prepared once and kept."""

    def __init__(self, url: str, *, search_path: str) -> None:
        address = url.replace("postgresql+psycopg:", "postgresql:", 1)
        # planned once: the tables are small, and planning takes longer than most statements
        settings = {
            "search_path": search_path,
            "timezone": "UTC",
            "synchronous_commit": "off",
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
            "enable_seqscan": "off",
            "track_activities": "off",
            "track_counts": "off",
            "update_process_title": "off",
            "compute_query_id": "off",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._connection = psycopg.connect(address, autocommit=True, options=options)
        self._pg = self._connection.pgconn
        self._values = Transformer(self._connection)
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._rows: dict[bytes, Any] = {}
        self._ended = False
        self.info: dict[str, Any] = {}  # what is to be counted after the commit: nobody counts here

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._connection.info.backend_pid

    def close(self) -> None:
        self._connection.close()

    def begin(self, settings: str) -> None:
        """A transaction begins."""
        self.run(f"BEGIN; {settings}")

    def commit(self) -> None:
        """On the way of the next statement: nobody else looks at this database."""
        self._ended = True

    def run(self, statements: str) -> None:
        """Statements without values or rows, in one round trip."""
        if self._ended:
            self._ended = False
            statements = f"COMMIT; {statements}"
        result = self._pg.exec_(statements.encode())
        if result.status not in _DONE:
            raise _error(result, statements)

    def execute(self, clause: TextClause, values: Mapping[str, Any] | None = None) -> Result:
        """As SQLAlchemy's connection does it; raises its exceptions."""
        sql, names = _numbered(clause.text)
        given = values or {}
        parameters = [_literal(given[name]) for name in names]
        dumped = self._values.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        types = self._values.types or ()
        key = (sql, types)
        name = self._prepared.get(key)
        if name is None:
            name = self._prepared[key] = f"s{len(self._prepared)}".encode()
            result = self._pg.prepare(name, sql.encode(), types)
            if result.status not in _DONE:
                del self._prepared[key]
                raise _error(result, sql)
        result = self._pg.exec_prepared(name, dumped, self._values.formats)
        if result.status not in _DONE:
            raise _error(result, sql)
        count = result.ntuples
        if not count:
            changed = result.command_tuples or 0
            return Result([], changed, result.status is ExecStatus.TUPLES_OK)
        if name not in self._rows:
            columns = tuple(result.fname(column) or b"" for column in range(result.nfields))
            self._rows[name] = _row_class(columns)
        self._values.set_pgresult(result)
        return Result(self._values.load_rows(0, count, self._rows[name]._make), count, True)

    @contextmanager
    def begin_nested(self) -> Iterator[None]:
        """A savepoint."""
        self.run("SAVEPOINT nested")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT nested; RELEASE SAVEPOINT nested")
            raise
        self.run("RELEASE SAVEPOINT nested")


def _literal(value: Any) -> Any:
    """A list as an array's text, in a tenth of psycopg's time; its type is in the statement."""
    if not isinstance(value, list):
        return value
    return "{" + ",".join(map(_element, value)) + "}"


def _element(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case int() | Decimal() | datetime():
            return f'"{value}"'
        case _:
            raise TypeError(f"an array of {type(value).__name__}: teach it to _element")


@cache
def _numbered(text: str) -> tuple[str, Sequence[str]]:
    """`:name` → `$1`, and the names in their order."""
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _NAME.sub(place, text).replace("\\:", ":"), tuple(names)


@cache
def _row_class(columns: tuple[bytes, ...]) -> Any:
    """A class of rows that have their columns as attributes and in `_mapping`."""
    named = namedtuple("Row", [name.decode() for name in columns], rename=True)  # type: ignore[misc]
    named._mapping = property(lambda row: dict(zip(row._fields, row, strict=True)))  # type: ignore[attr-defined]
    return named


def _error(result: psycopg.pq.PGresult, sql: str) -> Exception:
    original = psycopg.errors.error_from_result(result)
    error = DBAPIError.instance(sql, None, original, psycopg.Error)
    assert isinstance(error, Exception)
    return error

"""A store in a database of somebody else's: the library's own schema, and nothing else of ours."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from psycopg import sql
from sqlalchemy import create_engine, text

from tests.idempotency.processes import Start, Worker
from tests.postgres import Server
from torghut.idempotency import Store, create_schema

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def foreign_url(postgres_server: Server) -> Iterator[str]:
    """One database for all of these tests, as cloning one for each takes longer than they do."""
    name = f"test_idempotency_{os.getpid()}"
    postgres_server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = postgres_server.database(name)
    engine = create_engine(url)
    create_schema(engine)
    engine.dispose()
    yield url
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    postgres_server.execute(drop)


@pytest.fixture
def store(foreign_url: str) -> Iterator[Store]:
    """A store without keys, whose leases nobody waits for."""
    store = Store(foreign_url)
    with store.transaction() as tx:
        tx.execute(text("TRUNCATE idempotency_keys"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def warm() -> Iterator[IO[str]]:
    """Where processes are asked for."""
    command = [sys.executable, "-m", "tests.idempotency.worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    yield process.stdin
    process.stdin.close()
    process.wait(10)


@pytest.fixture
def start(warm: IO[str], store: Store, foreign_url: str, tmp_path: Path) -> Iterator[Start]:
    """`start(count, **settings)`: processes on one database."""
    with store.transaction() as tx:
        tx.execute(text("DROP TABLE IF EXISTS effects, gate"))
        tx.execute(text("CREATE TABLE effects (number int GENERATED ALWAYS AS IDENTITY)"))
        tx.execute(text("CREATE TABLE gate (open boolean)"))
    with ExitStack() as stack:

        def begin(count: int, **settings: object) -> list[Worker]:
            workers = []
            for _ in range(count):
                out = tmp_path / str(next(_numbers))
                os.mkfifo(out)
                workers.append(Worker(out))
                stack.callback(workers[-1].kill)
                line = json.dumps({"url": foreign_url, "out": str(out), **settings})
                print(line, file=warm, flush=True)
            return workers

        yield begin

"""`torghut demo` as a newcomer runs it: real processes, real bars, faults, and a pulled plug."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from torghut.demo import DATABASE
from torghut.storage import embedded

SESSIONS = 70
DEADLINE_S = 120


def demo(home: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo in `home`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TORGHUT_", "APCA_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "torghut", "demo", "--json", *options],
        env={**environment, "TORGHUT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    """The report of a demo that ended well."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    report: dict[str, object] = json.loads(out)
    return report


def wait_for_decisions(home: Path, count: int) -> None:
    """Until the demo in `home` has stored `count` decisions."""
    server = embedded.start(home, database=DATABASE)
    pause = threading.Event()
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(server.libpq_url) as connection:
                row = connection.execute("SELECT count(*) FROM trade_decisions").fetchone()
            if row is not None and row[0] >= count:
                return
        except psycopg.Error:
            pass  # not migrated yet
        pause.wait(0.05)
    pytest.fail(f"no {count} decisions within {DEADLINE_S} s")


def test_pulled_plug_and_a_second_start_end_with_equal_books(tmp_path: Path) -> None:
    """SIGKILL in the middle, with faults; the next run goes on and proves both books equal."""
    first = demo(tmp_path, "--fault-rate", "0.3")
    try:
        wait_for_decisions(tmp_path, 4)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    report = finished(demo(tmp_path, "--sessions", str(SESSIONS), "--fault-rate", "0.3"))
    assert (report["duplicates"], report["lost"]) == (0, 0), report["differences"]
    assert report["orders"] == sum(report["decisions"].values())  # type: ignore[attr-defined]
    assert str(report["proof"]).endswith("duplicates 0 · lost 0")


def test_books_that_differ_fail_the_run(tmp_path: Path) -> None:
    """Control: a fill that our ledger does not have makes the proof and the exit code fail."""
    finished(demo(tmp_path, "--sessions", "30", "--fault-rate", "0"))
    server = embedded.start(tmp_path, database=DATABASE)
    with psycopg.connect(server.libpq_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE executions SET ledger_qty = ledger_qty - 1 WHERE cum_qty > 1")
    process = demo(tmp_path, "--sessions", "1", "--fault-rate", "0")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert json.loads(out)["lost"] > 0

"""A user at a terminal: real processes of `python -m torghut`, a database, a simulated broker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests.factories import decision_json
from torghut import proof
from torghut.storage.database import Database

READY_S = 90
FAST = {
    "TORGHUT_BROKER_TIMEOUT_S": "0.5",
    "TORGHUT_LEASE_TTL_S": "1",
    "TORGHUT_RECONCILE_INTERVAL_S": "0.5",
    "TORGHUT_ABSENCE_GRACE_S": "3",
    "TORGHUT_BROKER_RATE_PER_MIN": "100000",
    "TORGHUT_SUBMIT_THREADS": "16",
    "TORGHUT_DECISION_TTL_S": "315360000",
}


def eventually(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """The first true value of `condition`; fails after the deadline."""
    pause = threading.Event()
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        pause.wait(0.05)
    raise AssertionError(f"not within {timeout_s} s")


class Program:
    """A process that goes on; its output is kept and read as it comes."""

    def __init__(self, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torghut", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def find(self, pattern: str) -> str:
        """The first group of `pattern`, once it is in the output."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output)
            assert match or self.process.poll() is None, self.output
            return match

        return str(eventually(found, READY_S).group(1))

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> int:
        """Send a signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 20) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code


class User:
    """Environment, files and processes of one user; `close` ends what still runs."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.url = database_url
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TORGHUT_", "APCA_"))}
        self.env = {
            **inherited,
            "TORGHUT_HOME": str(folder / "home"),
            "TORGHUT_DATABASE_URL": database_url,
            "TORGHUT_HTTP_PORT": "0",
            **FAST,
        }
        self._programs: list[Program] = []
        self.broker_url = self.control_url = ""

    def close(self) -> None:
        for program in self._programs:
            program.end(signal.SIGKILL)

    # ------------------------------------------------------------------ processes

    def start(self, *arguments: str, **env: str) -> Program:
        program = Program(arguments, {**self.env, **env})
        self._programs.append(program)
        return program

    def sim(self, *options: str, port: int = 0) -> Program:
        """`torghut sim` on free ports; the environment points at it from now on."""
        sim = self.start("sim", "--port", str(port), "--control-port", "0", *options)
        self.broker_url = sim.find(r"Simulated broker at (\S+)")
        self.control_url = sim.find(r"Control API at +(\S+)")
        self.env |= {
            "TORGHUT_BROKER": "alpaca",
            "APCA_API_BASE_URL": self.broker_url,
            "APCA_API_KEY_ID": "any-key",
            "APCA_API_SECRET_KEY": "any-secret",
        }
        return sim

    def run(self, *options: str, **env: str) -> Program:
        """`torghut run`, ready."""
        program = self.start("run", *options, **env)
        program.find(r"torghut: account (\S+),")
        return program

    def torghut(self, *arguments: str, stdin: str | None = None, **env: str) -> Any:
        """One command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "torghut", *arguments],
            env={**self.env, **env}, input=stdin, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def submit(self, lines: Iterable[str | Mapping[str, object]]) -> tuple[int, list[Any]]:
        """`torghut submit FILE`: exit code and its answers."""
        file = self.folder / "decisions.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("".join(f"{text}\n" for text in texts))
        done = self.torghut("submit", str(file))
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    # ------------------------------------------------------------------ what there is

    def sql(self, query: str, *values: object) -> list[Any]:
        address = self.url.replace("+psycopg", "", 1)
        with psycopg.connect(address, autocommit=True) as connection:
            answer = connection.execute(query, values)  # type: ignore[arg-type]
            return answer.fetchall() if answer.description else []

    def statuses(self) -> dict[str, int]:
        return dict(self.sql("SELECT status, count(*) FROM trade_decisions GROUP BY 1"))

    def control(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, self.control_url + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def place(self) -> Any:
        """A share bought by somebody else."""
        body = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market"}
        keys = {"APCA-API-KEY-ID": "any-key", "APCA-API-SECRET-KEY": "any-secret"}
        url = f"{self.broker_url}/v2/orders"
        answer = requests.post(url, json=body | {"time_in_force": "day"}, headers=keys, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def posts(self) -> int:
        return int(self.control("GET", "/requests")["routes"].get("submit", 0))

    def proof(self) -> proof.Proof:
        """Our books against the broker's ledger."""
        database = Database(self.url, pool_size=1)
        try:
            with database.transaction() as tx:
                orders = proof.ledger_orders(self.control("GET", "/ledger"))
                return proof.compare(tx, "paper", orders)
        finally:
            database.close()


def decisions(count: int, **over: object) -> list[dict[str, object]]:
    """Different decisions for one share each."""
    return [decision_json(intent=f"n{n}", qty="1", **over) for n in range(count)]


def one_line(done: Any, *words: str) -> None:
    """Assert that the error is one line of ours, with these words in it, and nothing else."""
    assert done.stderr.startswith("torghut: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr + done.stdout

"""How fast decisions are made durable: by the library, by HTTP, from a file."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from torghut.bench.figures import Figure
from torghut.bench.grounds import ACCOUNT, BATCH, Cost, Grounds, decision_json, made
from torghut.places import decision_ttl
from torghut.services.batch import Accounts, submit_lines
from torghut.serving import serving

CONNECTIONS = 32


def library(grounds: Grounds, count: int) -> list[Figure]:
    """Batches of 500 by IntakeDesk.accept, then the same ones again."""
    decisions = made(count, "library")
    figures = []
    for name, what in (
        ("intake_library", f"{count:,} decisions in batches of {BATCH}, one connection"),
        ("intake_duplicates", "the same again: all replayed"),
    ):
        cost = Cost(grounds.daemon)
        began = time.perf_counter()
        grounds.take_in(decisions)
        took_s = time.perf_counter() - began
        figures.append(Figure(name, count / took_s, "decisions/s", what))
        figures.append(cost.figure(name, count))
    return figures


def file(grounds: Grounds, count: int) -> list[Figure]:
    """JSON lines as `torghut submit FILE` takes them: read, checked, hashed and stored."""
    lines = [json.dumps(decision_json(number, "file")).encode() for number in range(count)]
    daemon = grounds.daemon
    ttl = decision_ttl(daemon.settings)
    began = time.perf_counter()
    answers = submit_lines(
        iter(lines), daemon.desk, accounts=Accounts((ACCOUNT,), ACCOUNT), ttl=ttl, source="bench"
    )
    created = sum(answer["result"] == "created" for answer in answers)
    took_s = time.perf_counter() - began
    return [Figure("intake_file", created / took_s, "decisions/s", f"{count:,} JSON lines")]


def http(grounds: Grounds, count: int) -> list[Figure]:
    """Single requests and batches by HTTP, from a process of their own."""
    figures = []
    with serving(grounds.daemon) as url:
        for name, batch in (("intake_http", 1), ("intake_http_batch", BATCH)):
            seen = _client(url, count, batch)
            what = f"{count:,} in requests of {batch}, {CONNECTIONS} connections"
            figures.append(Figure(name, seen["rate"], "decisions/s", what))
            figures.append(Figure(f"{name}_p50", seen["p50_ms"], "ms", "a request"))
            figures.append(Figure(f"{name}_p99", seen["p99_ms"], "ms", "a request"))
    return figures


def _client(url: str, count: int, batch: int) -> dict[str, float]:
    command = [sys.executable, "-m", "torghut.bench.http_client", url]
    command += [str(count), str(CONNECTIONS), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen: dict[str, float] = json.loads(done.stdout)
    return seen

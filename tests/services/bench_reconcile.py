"""One reconciliation of many orders that our books know nothing of: `python -m
tests.services.bench_reconcile [ORDERS]` (100,000 by default; placing them takes a few minutes).

Prints the CPU time and the peak memory of the process `torghut reconcile`, and how long it took;
then the same for one more, which finds nothing. Database and simulated broker are processes of
their own and not counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import requests

ORDERS = 100_000
THREADS = 8
SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA", "AMZN", "GOOGL", "SPY", "QQQ")  # one per thread


def main() -> None:
    """Place the orders, reconcile twice, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ORDERS
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TORGHUT_HOME": home}
        command = [sys.executable, "-m", "torghut", "sim", "--port", "0", "--control-port", "0"]
        command += ["--fill-delay-ms", "0", "--partial-fills", "0"]
        simulator = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert simulator.stdout is not None
        try:
            url = _address(simulator.stdout)
            _place(url, count)
            environment |= {
                "TORGHUT_BROKER": "alpaca",
                "TORGHUT_BROKER_RATE_PER_MIN": "1000000",
                "APCA_API_BASE_URL": url,
                "APCA_API_KEY_ID": "key",
                "APCA_API_SECRET_KEY": "secret",
            }
            _torghut(environment, "migrate")
            print(f"{count:,} orders, first: {_torghut(environment, 'reconcile', '--json')}")
            print(f"{count:,} orders, again: {_torghut(environment, 'reconcile', '--json')}")
        finally:
            simulator.kill()
            simulator.wait()


def _address(output: IO[str]) -> str:
    for line in output:
        found = re.search(r"Simulated broker at (\S+)", line)
        if found:
            return found[1]
    raise SystemExit("the simulator did not start")


def _place(url: str, count: int) -> None:
    def some(first: int) -> None:
        with requests.Session() as session:
            session.headers.update({"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"})
            for number in range(first, count, THREADS):
                body = {
                    "symbol": SYMBOLS[first],
                    "qty": "1",
                    "side": ("buy", "sell")[number // THREADS % 2],
                    "type": "market",
                    "time_in_force": "day",
                }
                answer = session.post(f"{url}/v2/orders", json=body, timeout=30)
                assert answer.ok, answer.text

    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, range(THREADS)))
    print(f"{count:,} orders placed in {time.monotonic() - began:.0f} s")


def _torghut(environment: Mapping[str, str], *arguments: str) -> str:
    began = time.monotonic()
    command = [sys.executable, "-m", "torghut", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, output
    figures = {
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "took_s": round(time.monotonic() - began, 1),
    }
    return json.dumps({**figures, "wrote": output.strip()})


if __name__ == "__main__":
    main()

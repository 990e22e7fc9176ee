"""A restart, clean or by SIGKILL, keeps every acknowledged order, fill and cash change."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.simulator.bench import KEYS, Bench, eventually
from torghut.simulator import state
from torghut.simulator.server import SimConfig, Simulator


def books(bench: Bench) -> dict[str, Any]:
    """Everything that must survive."""
    return {
        "orders": bench.client.get("/orders", {"status": "all", "limit": 500}),
        "activities": bench.client.get("/account/activities"),
        "positions": {p.symbol: p.qty for p in bench.client.get_all_positions()},
        "cash": bench.client.get("/account")["cash"],
        "ledger": bench.control("GET", "/ledger"),
    }


def test_restart_keeps_the_books(start: Callable[..., Bench], tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    with Simulator(SimConfig(port=0, state=path, partial_fill_probability=1.0)) as sim:
        first = Bench(sim)
        for number in range(5):
            first.filled(client_order_id=f"m{number}", qty="7")
        first.filled(qty="0.123456789", symbol="BTC/USD", time_in_force="gtc")
        first.order(client_order_id="rest", type="limit", limit_price="10")
        eventually(lambda: first.client.get_order_by_client_id("rest").status == "new")
        before = books(first)
        assert first.control("POST", "/state/save")["orders"] == 7
        assert books(first) == before
    second = start(state=path)
    assert books(second) == before
    assert second.refused(client_order_id="m0")[1]["message"] == "client_order_id must be unique"
    assert second.client.get("/account")["buying_power"]
    fresh = second.order()
    assert fresh["id"] not in {order["id"] for order in before["orders"]}
    second.client.cancel_order_by_id(second.client.get_order_by_client_id("rest").id)
    eventually(lambda: not second.client.get_orders())


def test_order_that_was_pending_goes_on_after_a_restart(
    start: Callable[..., Bench], tmp_path: Path
) -> None:
    path = tmp_path / "sim.jsonl"
    with Simulator(SimConfig(port=0, state=path, fill_delay_ms=600_000)) as sim:
        order = Bench(sim).order()
    second = start(state=path)
    eventually(lambda: second.status(order["id"]) == "filled")


def test_reset_empties_the_file(start: Callable[..., Bench], tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    bench = start(state=path)
    bench.filled()
    bench.control("POST", "/reset")
    assert state.load(path).orders == {}
    assert bench.client.get("/account")["cash"] == "100000"


def test_torn_last_line_is_dropped_and_a_torn_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    path.write_bytes(b'{"switches": {}}\n{"order": {"id"')
    assert state.load(path).records == 1
    path.write_bytes(b'{"order": {"id"\n{"switches": {}}\n')
    with pytest.raises(ValueError, match=r"sim.jsonl:1: .*move the file away"):
        state.load(path)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str, str]]]:
    """Starts `python -m torghut.simulator`; gives the process and its two URLs."""
    running: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], str, str]:
        command = [sys.executable, "-m", "torghut.simulator", "--port", "0", "--control-port", "0",
                   "--state", str(tmp_path / "sim.jsonl")]  # fmt: skip
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(child)
        assert child.stdout is not None
        urls = [child.stdout.readline().split()[3] for _ in range(2)]
        while "/ledger" not in child.stdout.readline():
            pass
        return child, urls[0], urls[1]

    yield begin
    for child in running:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_kill_9_loses_no_acknowledged_order(
    process: Callable[[], tuple[subprocess.Popen[str], str, str]],
) -> None:
    child, url, _ = process()
    order = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    for number in range(50):
        answer = requests.post(
            f"{url}/v2/orders", json={**order, "client_order_id": f"k{number}"}, headers=KEYS,
            timeout=10,
        )  # fmt: skip
        assert answer.status_code == 200
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    child, url, control_url = process()
    ledger = requests.get(f"{control_url}/ledger", timeout=10).json()
    assert set(ledger["orders"]) == {f"k{number}" for number in range(50)}
    assert ledger["totals"]["orders"] == 50
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0


def test_a_taken_port_is_one_line(
    process: Callable[[], tuple[subprocess.Popen[str], str, str]],
) -> None:
    _, url, _ = process()
    port = url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "torghut.simulator", "--port", port, "--control-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"torghut sim: [Errno 98] cannot listen on 127.0.0.1:{port}: Address already in use; "
        "give another port"
    ]
    assert json.dumps(done.stdout) == '""'

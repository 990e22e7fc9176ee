"""8 processes of `torghut submit -` race, and do not jointly pass a limit (P7).

What left is asked of the simulator. The executor here works with 8 callers while they send.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.factories import decision_json
from tests.services.rig import Rig, eventually
from torghut.domain.exposure import Reservations
from torghut.domain.exposure_book import ExposureBook

PROCESSES = 8
EACH = 12
LIMIT = 5000  # of 96 orders of 400
MakeRig = Callable[..., Rig]


def senders(url: str) -> list[subprocess.Popen[bytes]]:
    """Processes that wait for their lines on standard input."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("TORGHUT_", "APCA_"))}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torghut", "submit", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**own, "TORGHUT_DATABASE_URL": url},
        )
        for _ in range(PROCESSES)
    ]


def lines(number: int) -> bytes:
    wanted = [
        decision_json(intent=f"{number}-{n}", qty="4", expires_at="2036-01-01T00:00:00Z")
        for n in range(EACH)
    ]
    return "".join(json.dumps(line) + "\n" for line in wanted).encode()


def race(make_rig: MakeRig, url: str) -> Rig:
    pool = ThreadPoolExecutor(8)
    rig = make_rig(pool=pool, submit_threads=8, risk={"max_position_notional": LIMIT})
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100", "bid": "100",
                                          "ask": "100"})  # fmt: skip
    started = senders(url)
    with pool, ThreadPoolExecutor(PROCESSES) as feeding:
        sent = [feeding.submit(p.communicate, lines(n), 120) for n, p in enumerate(started)]

        def done() -> bool:
            rig.execute(1)
            rig.settle()
            rig.fill_budget()
            return all(s.done() for s in sent) and not rig.sql(
                "SELECT 1 FROM trade_decisions WHERE status IN "
                "('planned', 'approved', 'submitting', 'in_doubt') LIMIT 1"
            )

        eventually(done, 120)
        rig.execute()
    answers = [json.loads(line) for s in sent for line in s.result()[0].splitlines()]
    assert [p.returncode for p in started] == [0] * PROCESSES
    assert [a["result"] for a in answers] == ["created"] * (PROCESSES * EACH)
    return rig


def bought(rig: Rig) -> Decimal:
    orders = rig.control("GET", "/ledger")["orders"].values()
    return sum((Decimal(line["qty"]) * 100 for lines in orders for line in lines), Decimal(0))


def test_processes_cannot_jointly_pass_the_limit(make_rig: MakeRig, database_url: str) -> None:
    rig = race(make_rig, database_url)
    assert bought(rig) == LIMIT // 400 * 400
    ended = dict(rig.sql("SELECT status, count(*) FROM trade_decisions GROUP BY 1"))
    assert sum(ended.values()) == PROCESSES * EACH  # each was acknowledged, and each has ended
    assert ended["denied"] == PROCESSES * EACH - LIMIT // 400


def test_control_without_reservations_they_do(
    make_rig: MakeRig, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExposureBook, "take", lambda *_, **__: None)
    monkeypatch.setattr(ExposureBook, "reservations", lambda *_, **__: Reservations())
    assert bought(race(make_rig, database_url)) > LIMIT

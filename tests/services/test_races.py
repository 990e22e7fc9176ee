"""Limits hold when decisions race (P7): the broker's own ledger is asked, not our books."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.factories import decision
from tests.services.rig import Rig, eventually
from torghut.domain.exposure import Reservations
from torghut.domain.exposure_book import ExposureBook

LIMIT = Decimal(5000)
PRICE = Decimal(100)
MakeRig = Callable[..., Rig]


def race(make_rig: MakeRig, *, faulty: bool = False, threads: int = 8) -> Rig:
    """8 threads send 10 buys of 4 shares each, while an executor with 8 callers works."""
    pool = ThreadPoolExecutor(8)
    rig = make_rig(
        pool=pool,
        submit_threads=8,
        risk={"max_position_notional": str(LIMIT)},
        timeout_s=0.3,
        absence_grace_s=0,
    )
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100", "bid": "100",
                                          "ask": "100"})  # fmt: skip
    if faulty:
        for kind in ("accept_then_reset", "accept_then_5xx", "refuse_5xx", "rate_limit"):
            rig.fault(kind, count=None, probability=0.1, rate_limit_headers=False)
    start = threading.Barrier(threads + 1)

    def send(thread: int) -> list[str]:
        start.wait(10)
        return [
            rig.desk.accept([decision(intent=f"{thread}-{n}", qty="4")], source="t")[
                0
            ].decision_hash
            for n in range(10)
        ]

    with pool, ThreadPoolExecutor(threads) as senders:
        sending = [senders.submit(send, n) for n in range(threads)]
        start.wait(10)

        def done() -> bool:
            rig.execute(1)
            rig.settle()
            rig.reconcile()
            rig.fill_budget()
            rig.time.pass_s(0.5)
            return all(s.done() for s in sending) and not rig.open(
                [h for s in sending for h in s.result()]
            )

        eventually(done, 60)
    return rig


def bought(rig: Rig) -> Decimal:
    orders = rig.control("GET", "/ledger")["orders"].values()
    return sum((Decimal(line["qty"]) for lines in orders for line in lines), Decimal(0)) * PRICE


@pytest.mark.parametrize("faulty", [False, True])
def test_racing_senders_cannot_jointly_pass_the_limit(make_rig: MakeRig, faulty: bool) -> None:
    """80 orders of 400 against 5000: exactly 12 are sent, also with answers lost.

    One that came back to `approved` and found its room taken is canceled instead of denied.
    """
    rig = race(make_rig, faulty=faulty)
    assert bought(rig) == LIMIT // 400 * 400
    statuses = dict(rig.sql("SELECT status_reason, count(*) FROM trade_decisions "
                            "WHERE status IN ('denied', 'canceled') GROUP BY 1"))  # fmt: skip
    assert statuses == {"position_notional": 68}


def test_control_without_reservations_they_do(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same race with what is in flight not counted: now they pass it."""
    monkeypatch.setattr(ExposureBook, "take", lambda *_, **__: None)
    monkeypatch.setattr(ExposureBook, "reservations", lambda *_, **__: Reservations())
    assert bought(race(make_rig)) > LIMIT

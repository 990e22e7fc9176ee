"""Evaluations per second on one core with every check on: `python -m tests.domain.bench`.

By the processor's time of this process, so that a busy machine says the same as an idle one.
"""

from __future__ import annotations

import time

from tests.domain.judging import FACTS, NOW
from tests.factories import order
from torghut.domain.exposure import OrderCounts, Reservations, RestingOrder
from torghut.domain.limits import AT_LEAST, COUNTED, LIMITS
from torghut.domain.risk import evaluate
from torghut.domain.risk_policy import RiskPolicy

ROUNDS = 5
EVALUATIONS = 20_000


def main() -> None:
    """Print the best and the worst of some rounds."""
    wide = {name: "0.001" if name in AT_LEAST else "100" if name.endswith("_pct") else "1000000"
            for name in LIMITS}  # fmt: skip
    table = {**wide, "buying_power_reserve_pct": "1", "strategy": {"s": dict.fromkeys(COUNTED, 50)},
             "symbols": ["AAPL"], "strategies": ["s"], "restricted_symbols": ["GME"]}  # fmt: skip
    limits = RiskPolicy(table, account="paper", live=False).limits_for("s", "AAPL")
    request = order(type="limit", limit_price="99.5")
    reserved = Reservations(
        counts=OrderCounts(open_orders=3, last_second=1, last_minute=5, today=40),
        resting=(RestingOrder(side="sell", limit_px=FACTS.ask_px, stop_px=None),),
    )
    verdict = evaluate(request, limits, FACTS, reserved, NOW, event_ts=NOW)
    assert verdict.approved, [c for c in verdict.checks if not c.passed]
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(EVALUATIONS):
            evaluate(request, limits, FACTS, reserved, NOW, event_ts=NOW)
        rates.append(EVALUATIONS / (time.process_time() - began))
    print(f"{len(verdict.checks)} checks, {min(rates):,.0f} to {max(rates):,.0f} evaluations/s")


if __name__ == "__main__":
    main()

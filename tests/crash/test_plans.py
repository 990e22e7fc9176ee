"""A plan of 40 items, killed at random instants: each item one order, buys after what funds them.

The daemon is killed with SIGKILL again and again while it works a plan off, and a tenth of all
requests to the broker fails in some way. `CRASH_MATRIX=full` kills at 50 instants, the default run
at six. Prices are pinned, so that the statistics can be worked out from the broker's own books.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.crash.answers import Answer
from tests.crash.cases import FULL
from tests.crash.conftest import Build
from tests.crash.world import KEYS, World
from torghut.recovery_points import RecoveryPoint as P
from torghut.simulator.faults import parse_fault
from torghut.storage import plan_reads

KILLS_EACH = 5 if FULL else 3
SEEDS = range(10 if FULL else 2)
STORM = Answer("storm")
SELLS = ("AAPL", "MSFT", "GOOG", "IBM", "AMZN", "NVDA", "AMD", "NFLX", "DIS")
BUYS = ("SPY", "QQQ", "JPM", "GE", "BAC", "WMT", "XOM", "PFE", "INTC")
PX = {symbol: Decimal(10 + 7 * n) for n, symbol in enumerate((*SELLS, *BUYS))}
HELD = 200


def plan_json(**over: object) -> dict[str, object]:
    """40 items: 18 sells, 18 buys of the same worth, two duplicates, two micro orders.

    The sells bring less than their amounts, as whole shares are rounded down; so the last buys
    are cut, or not funded.
    """
    sells = [_item("sell", s, PX[s] * n + 3) for s in SELLS for n in (5, 8)]
    worth = sum((Decimal(str(item["trade_amount"])) for item in sells), Decimal(0))
    each = (worth / 18).quantize(Decimal("0.01"))
    buys = [_item("buy", s, each + n) for s in BUYS for n in (-1, 1)]
    items = [
        *buys[:9], *sells, sells[3], _item("sell", "DIS", Decimal("0.5")),
        *buys[9:], buys[4], _item("buy", "INTC", Decimal("0.7")),
    ]  # fmt: skip
    assert len(items) == 40
    return {"correlation_id": "forty", "items": items, "cash": "0", **over}


def _item(action: str, symbol: str, amount: Decimal) -> dict[str, object]:
    return {"symbol": symbol, "action": action, "trade_amount": str(amount)}


class Played:
    """A plan in a world."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.file = folder / "plan.json"
        for symbol, px in PX.items():
            body = {"symbol": symbol, "price": str(px), "bid": str(px), "ask": str(px)}
            self._post(f"{world.simulator.control_url}/market/price", body)

    def hold(self) -> None:
        """Shares to sell, in both books."""
        for symbol in SELLS:
            order = {"symbol": symbol, "qty": str(HELD), "side": "buy", "type": "market"}
            self._post(f"{self.world.simulator.url}/v2/orders", order | {"time_in_force": "day"})
        daemon = self.world.start()
        self.world.wait(lambda: self._count("positions", f"qty = {HELD}") == len(SELLS), "shares")
        daemon.kill()

    def send(self, body: Mapping[str, object], point: P | None = None) -> bool:
        """`torghut plan FILE`; False if it was killed at the point."""
        self.file.write_text(json.dumps(body))
        child = self.world.command(["plan", str(self.file)], point)
        assert child.power_failed or child.join(0) == 0, child.log.read_text()
        return not child.power_failed

    def plans(self) -> list[dict[str, Any]]:
        """Those that were sent, oldest first."""
        with self.world.database.transaction() as tx:
            ids = tx.execute(text("SELECT plan_id FROM plans ORDER BY plan_id")).scalars()
            found = [plan_reads.plan(tx, id_) for id_ in ids]
        return [plan for plan in found if plan is not None]

    def ended(self) -> bool:
        over = all(plan["saga"]["finalized_at"] for plan in self.plans())
        return over and not self.world.state()["unbooked"]

    def faults(self) -> list[str]:
        """What does not hold: orders, order of phases, money, statistics, events."""
        plans = self.plans()
        orders = self.world.ledger()["orders"]
        found = [f"a plan is {p['status']}" for p in plans if p["status"] != "completed"]
        for plan in plans:
            found += _order_faults(plan, orders) + _money_faults(plan, orders)
            found += self._phase_faults(plan["correlation_id"])
        others = len(orders) - sum(len(_placed(plan)) for plan in plans) - len(SELLS)
        found += [f"{others} orders of no item"] if others else []
        ended = self._count("events", "kind = 'plan.ended'")
        settled = self._count("events", "kind = 'plan.item_settled'")
        if (ended, settled) != (len(plans), 38 * len(plans)):  # two of forty are others again
            found.append(f"events: {ended} ended, {settled} settled")
        return found

    def _phase_faults(self, plan: str) -> list[str]:
        """Every buy was posted after the last sell's fill was booked."""
        with self.world.database.transaction() as tx:
            row = tx.execute(
                text("""SELECT
                  (SELECT max(f.recorded_at) FROM fills f JOIN executions e USING (execution_id)
                   JOIN trade_decisions d ON d.decision_id = e.decision_id
                   WHERE d.side = 'sell' AND d.correlation_id = :plan) AS sold,
                  (SELECT min(a.intended_at) FROM submission_attempts a
                   JOIN trade_decisions d USING (decision_id)
                   WHERE d.side = 'buy' AND d.correlation_id = :plan) AS bought"""),
                {"plan": plan},
            ).one()
        if row.sold is None or row.bought is None:
            return ["nothing was sold, or nothing bought"]
        return [] if row.sold < row.bought else [f"bought at {row.bought}, sold at {row.sold}"]

    def _count(self, table: str, condition: str) -> int:
        with self.world.database.transaction() as tx:
            query = text(f"SELECT count(*) FROM {table} WHERE {condition}")
            return int(tx.execute(query).scalar_one())

    def _post(self, url: str, body: Mapping[str, object]) -> None:
        answer = self.world._http.post(url, json=body, headers=KEYS, timeout=10)
        assert answer.ok, answer.text


def _placed(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [item for item in plan["items"] if item["qty"] and item["status"] != "duplicate"]


def _order_faults(plan: Mapping[str, Any], orders: Mapping[str, Any]) -> list[str]:
    """Each item that was ordered has one order."""
    found = []
    for item in _placed(plan):
        there = orders.get(item["decision_hash"], [])
        if [Decimal(order["qty"]) for order in there] != [Decimal(item["qty"])]:
            found.append(f"{item['symbol']} {item['trade_amount']}: {len(there)} orders")
    if plan["statistics"]["sell"]["placed"] != 18:
        found.append(f"statistics: {plan['statistics']}")
    return found


def _money_faults(plan: Mapping[str, Any], orders: Mapping[str, Any]) -> list[str]:
    """The statistics are what the broker's own books come to; buys cost what sells brought."""
    worth = {"sell": Decimal(0), "buy": Decimal(0)}
    counted = {phase: dict.fromkeys(("placed", "succeeded"), 0) for phase in worth}
    for item in plan["items"]:
        for order in orders.get(item["decision_hash"], []):
            if item["status"] != "duplicate":
                value = Decimal(order["filled_qty"]) * PX[item["symbol"]]
                worth[item["action"]] += value
                counted[item["action"]]["placed"] += 1
                counted[item["action"]]["succeeded"] += order["status"] == "filled"
    found = []
    for phase, statistics in plan["statistics"].items():
        if Decimal(statistics["trade_value"]) != worth[phase]:
            found.append(f"{phase}: {statistics['trade_value']} traded, {worth[phase]} there")
        if {name: statistics[name] for name in counted[phase]} != counted[phase]:
            found.append(f"{phase}: {statistics}, but {counted[phase]}")
        named = ("placed", "skipped", "duplicates")  # what failed had been placed
        if sum(statistics[name] for name in named) != 20 or statistics["duplicates"] != 1:
            found.append(f"{phase}: not 20 items, one of them a duplicate: {statistics}")
    if Decimal(plan["proceeds"] or 0) != worth["sell"] or worth["buy"] > worth["sell"]:
        found.append(f"sold {worth['sell']} ({plan['proceeds']}), bought {worth['buy']}")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_of_forty_items_killed_at_random_instants(
    seed: int, build: Build, tmp_path: Path
) -> None:
    """Every kill strikes while a plan is under way: when one has ended, the next one is sent."""
    print(f"seed {seed}")
    rng = random.Random(f"plan {seed}")
    world = build(STORM, others=0, seed=seed, fill_delay_ms=200)
    played = Played(world, tmp_path)
    played.hold()
    world.simulator.plan.add(parse_fault("all:0.1"))
    sent = struck = 0
    while struck < KILLS_EACH:
        if played.ended():
            sent += 1
            assert played.send(plan_json(correlation_id=f"forty {sent}"))
        daemon = world.start()
        instant = time.monotonic() + rng.uniform(0.2, 2.5)
        world.wait(lambda at=instant: time.monotonic() >= at, "the instant")
        struck += not played.ended()
        daemon.kill()
    world.start()
    world.end_faults()
    world.wait(played.ended, "the plans", 120)
    assert played.faults() == []
    assert world.book_faults() == []


@pytest.mark.parametrize("point", [P.PLAN_BEFORE_COMMIT, P.PLAN_AFTER_COMMIT])
def test_who_sends_a_plan_dies(point: P, build: Build, tmp_path: Path) -> None:
    """P2: killed before its answer, and sent again: one plan, carried out once."""
    world = build(STORM, others=0)
    played = Played(world, tmp_path)
    body = plan_json(items=[_item("buy", "PFE", Decimal(500)), _item("buy", "INTC", Decimal(500))])
    body = {name: value for name, value in body.items() if name != "cash"}
    assert not played.send(body, point)
    assert played._count("plans", "true") == int(point is P.PLAN_AFTER_COMMIT)
    assert played.send(body)
    world.start()
    world.wait(played.ended, "the plan")
    assert played._count("plans", "true") == played._count("sagas", "true") == 1
    assert played.plans()[0]["statistics"]["buy"]["succeeded"] == 2
    assert len(world.ledger()["orders"]) == 2


@pytest.mark.parametrize(("point", "passes"), [(P.PLAN_BEFORE_COMMIT, 4), (P.PLAN_AFTER_COMMIT, 1)])
def test_killed_at_a_step_of_a_plan(point: P, passes: int, build: Build, tmp_path: Path) -> None:
    """The points of a plan's own transactions; the next daemon goes on."""
    world = build(STORM, others=0)
    played = Played(world, tmp_path)
    played.hold()
    assert played.send(plan_json())
    dying = world.start(TORGHUT_CRASH_AT=f"{point.value}:{passes}")
    world.wait(lambda: dying.dead, "to die")
    assert dying.power_failed
    world.start()
    world.wait(played.ended, "the plan")
    assert played.faults() == []
    assert world.book_faults() == []


def test_control_sells_that_are_not_awaited(build: Build, tmp_path: Path) -> None:
    """Control: buys that are placed behind unfilled sells are seen."""
    world = build(STORM, others=0, fill_delay_ms=500)
    played = Played(world, tmp_path)
    played.hold()
    assert played.send(plan_json(cash="20000"))
    world.start(mutated=("sells_not_awaited",))
    world.wait(lambda: played._count("executions", "side = 'buy'") > len(SELLS), "buys")
    world.wait(lambda: not world.state()["unbooked"], "fills")
    assert [fault for fault in played.faults() if "bought at" in fault]


def test_control_items_that_are_forgotten(build: Build, tmp_path: Path) -> None:
    """Control: without the row and the identity an item is ordered again after a crash."""
    world = build(STORM, others=0)
    played = Played(world, tmp_path)
    played.hold()
    assert played.send(plan_json())
    dying = world.start(P.PLAN_AFTER_COMMIT, mutated=("items_forgotten",))
    world.wait(lambda: dying.dead, "to die")
    mutated = world.start(mutated=("items_forgotten",))
    world.wait(lambda: len(world.ledger()["orders"]) > len(SELLS) + 18, "more orders than sells")
    mutated.kill()
    assert [fault for fault in played.faults() if "orders of no item" in fault]

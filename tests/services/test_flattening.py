"""Close and flatten: recorded decisions, never more than there is (P11; story 9)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig, eventually
from tests.services.test_order_cancel import resting, status_at_broker
from torghut.services import flattening, order_requests
from torghut.services.order_requests import RequestRefused
from torghut.storage.rows import IntakeResult

MakeRig = Callable[..., Rig]
TTL = timedelta(days=1)


def held(rig: Rig, symbol: str = "AAPL", qty: str = "10") -> None:
    """A position of the broker's and of our books."""
    hash_ = rig.send(symbol=symbol, qty=qty, intent=f"open {symbol} {qty}")
    rig.execute()
    eventually(lambda: rig.reconcile() and rig.status(hash_)[0] == "closed")
    rig.time.pass_s(6)  # the broker's account is asked for again
    rig.reconcile()


def positions(rig: Rig) -> dict[str, Decimal]:
    return {r.symbol: r.qty for r in rig.sql("SELECT symbol, qty FROM positions WHERE qty <> 0")}


def close(rig: Rig, symbol: str, key: str = "key", qty: str | None = None) -> Any:
    return order_requests.close(
        rig.database,
        ACCOUNT,
        symbol,
        rig.asker(key),
        qty=None if qty is None else Decimal(qty),
        ttl=TTL,
    )


def work(rig: Rig, done: Callable[[], Any]) -> Any:
    """Everything that the owner of an account does, until `done`."""

    def step() -> Any:
        rig.flattener.run_once(rig.lease, rig.time())
        rig.act()
        rig.execute(2)
        rig.settle()
        rig.time.pass_s(6)
        rig.reconcile()
        return done()

    return eventually(step, 60)


def test_close_a_part_and_then_the_rest(rig: Rig) -> None:
    """An ordinary decision of the strategy `operator`; the same key answers with it again."""
    held(rig)
    first = close(rig, "aapl", "a", "4")
    assert first.result is IntakeResult.CREATED
    assert close(rig, "AAPL", "a", "4").decision_hash == first.decision_hash
    with pytest.raises(RequestRefused) as refused:
        close(rig, "AAPL", "a", "7")
    assert refused.value.conflict
    assert rig.row(first.decision_hash).strategy == "operator"
    work(rig, lambda: positions(rig) == {"AAPL": 6})
    assert close(rig, "AAPL", "a").result is IntakeResult.REPLAYED
    close(rig, "AAPL", "b")
    work(rig, lambda: positions(rig) == {})


def test_close_not_more_than_there_is(rig: Rig) -> None:
    """Neither asked for too much, nor twice, nor what is not there."""
    with pytest.raises(RequestRefused, match="no position"):
        close(rig, "AAPL")
    held(rig)
    with pytest.raises(RequestRefused, match="at most 10"):
        close(rig, "AAPL", qty="11")
    first, second = close(rig, "AAPL", "one"), close(rig, "AAPL", "two")
    work(rig, lambda: positions(rig) == {})
    ends = {rig.status(hash_) for hash_ in (first.decision_hash, second.decision_hash)}
    assert ends == {("closed", "order_terminal"), ("denied", "reducing_only")}


def test_flatten(rig: Rig) -> None:
    """Every order canceled, others' too; every position closed; the account reducing after it."""
    held(rig)
    held(rig, "MSFT", "3")
    mine = resting(rig, intent="resting")
    other = rig.place(type="limit", limit_price="1", symbol="MSFT")
    asked = flattening.request(rig.database, ACCOUNT, rig.asker("f"))
    again = flattening.request(rig.database, ACCOUNT, rig.asker("another"))
    assert asked.created
    assert again.row.flatten_id == asked.row.flatten_id
    assert rig.state()[0] == "reducing"
    work(rig, lambda: flattening.look(rig.database, asked.row).row.ended)
    assert flattening.look(rig.database, asked.row).row.status == "done"
    assert positions(rig) == {}
    assert status_at_broker(rig, mine) == "canceled"
    assert status_at_broker(rig, other["client_order_id"]) == "canceled"
    assert rig.state()[0] == "reducing"
    assert not flattening.request(rig.database, ACCOUNT, rig.asker("f")).created


def test_flatten_through_faults(make_rig: MakeRig) -> None:
    """Cancels and closings get every kind of answer; nothing is sold twice."""
    rig = make_rig(absence_grace_s=3)
    held(rig)
    resting(rig, intent="resting")
    for kind in ("accept_then_reset", "refuse_5xx"):
        rig.fault(kind, "cancel")
        rig.fault(kind, "submit")
    asked = flattening.request(rig.database, ACCOUNT, rig.asker("f"))
    work(rig, lambda: flattening.look(rig.database, asked.row).row.ended)
    assert flattening.look(rig.database, asked.row).row.status == "done"
    assert positions(rig) == {}
    totals = rig.totals()
    assert totals["duplicate_client_order_ids"] == []


def test_flatten_while_halted_says_what_to_do(rig: Rig) -> None:
    rig.sql("UPDATE trading_states SET state = 'halted' WHERE scope = 'global'")
    with pytest.raises(RequestRefused, match="resume first"):
        flattening.request(rig.database, ACCOUNT, rig.asker())
    assert rig.count("flattens") == 0


def test_an_empty_account_is_flat_at_once(rig: Rig) -> None:
    asked = flattening.request(rig.database, ACCOUNT, rig.asker())
    work(rig, lambda: flattening.look(rig.database, asked.row).row.ended)
    assert flattening.look(rig.database, asked.row).row.status_detail == "flat"

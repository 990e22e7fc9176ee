"""The proof: our books against the broker's, order by order, computed from both and nothing else.

`decisions N · broker orders N · duplicates 0 · lost 0`

- duplicates: client_order_ids with more than one broker order.
- lost: broker orders that we have no execution for; executions that the broker does not have;
  decisions that are said to be sent without an order; filled quantities that differ.

The broker's side is the simulator's ledger, which it keeps apart from its order book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """One order that the broker ever accepted."""

    client_order_id: str
    broker_order_id: str
    filled_qty: Decimal


@dataclass(frozen=True, slots=True)
class Proof:
    """The comparison; `differences` has one line for each thing that is not equal."""

    decisions: int
    orders: int
    duplicates: int
    lost: int
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.duplicates and not self.lost

    def __str__(self) -> str:
        return (
            f"decisions {self.decisions} · broker orders {self.orders} · "
            f"duplicates {self.duplicates} · lost {self.lost}"
        )


def compare(tx: Connection, account: str, broker: Sequence[BrokerOrder]) -> Proof:
    """Compare the books of one account with everything that its broker ever accepted."""
    by_client: dict[str, list[BrokerOrder]] = {}
    for order in broker:
        by_client.setdefault(order.client_order_id, []).append(order)
    twice = {id_: orders for id_, orders in by_client.items() if len(orders) > 1}
    differences = [f"{id_}: {len(orders)} broker orders" for id_, orders in twice.items()]
    lost = _lost(tx, account, by_client)
    count = tx.execute(
        text("SELECT count(*) FROM trade_decisions WHERE account = :account"), {"account": account}
    ).scalar_one()
    return Proof(
        decisions=count,
        orders=len(broker),
        duplicates=len(twice),
        lost=len(lost),
        differences=(*differences, *lost),
    )


def ledger_orders(ledger: Mapping[str, object]) -> list[BrokerOrder]:
    """The orders of the simulator's `GET /ledger`."""
    orders = ledger["orders"]
    assert isinstance(orders, Mapping)
    return [
        BrokerOrder(client_order_id, entry["order_id"], Decimal(entry["filled_qty"]))
        for client_order_id, entries in orders.items()
        for entry in entries
    ]


def _lost(
    tx: Connection, account: str, by_client: Mapping[str, Sequence[BrokerOrder]]
) -> list[str]:
    rows = tx.execute(
        text("""SELECT client_order_id, broker_order_id, cum_qty, ledger_qty FROM executions
        WHERE account = :account"""),
        {"account": account},
    ).all()
    ours = {row.client_order_id: row for row in rows}
    lost = [f"{id_}: at the broker, not in our books" for id_ in by_client if id_ not in ours]
    for id_, row in ours.items():
        theirs = by_client.get(id_)
        if not theirs:
            lost.append(f"{id_}: in our books, not at the broker")
            continue
        filled = sum((order.filled_qty for order in theirs), Decimal(0))
        if filled != row.cum_qty or filled != row.ledger_qty:
            lost.append(
                f"{id_}: filled {filled} at the broker, {row.cum_qty} seen, "
                f"{row.ledger_qty} in the ledger"
            )
    unsent = tx.execute(
        text("""SELECT decision_hash FROM trade_decisions d
        WHERE account = :account AND status IN ('submitted', 'closed') AND NOT EXISTS
          (SELECT 1 FROM executions e WHERE e.client_order_id = d.decision_hash)"""),
        {"account": account},
    ).scalars()
    lost.extend(f"{hash_}: said to be sent, without an order" for hash_ in unsent)
    return lost

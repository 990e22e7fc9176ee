"""The kinds of discrepancy: in what our books and the broker's can differ (P12).

What each means and what ends it: docs/reconciliation.md. Words for people: torghut.cli_words.
"""

from __future__ import annotations

from enum import StrEnum


class DiscrepancyKind(StrEnum):
    """In what books and broker differ; the subject is what it is about."""

    ORDER_DIFFERS = "order_differs"  # a decision_hash
    ORDER_AFTER_END = "order_after_end"  # a decision_hash
    DUPLICATE_ORDER = "duplicate_order"  # the second one's broker_order_id
    ORDER_EXCESS = "order_excess"  # a broker_order_id
    ORDER_STUCK = "order_stuck"  # a broker_order_id
    FILLS_MISSING = "fills_missing"  # a broker_order_id
    CANNOT_BE_BOOKED = "cannot_be_booked"  # the broker's id of an order, fill or entry
    UNREADABLE_ROW = "unreadable_row"  # the broker's id of an order, fill or entry
    ROWS_MISSING = "rows_missing"  # "books"
    POSITION_DIFFERS = "position_differs"  # a symbol
    ALERT_REFUSED = "alert_refused"  # the sender, and the beginning of the text's SHA-256
    CASH_DIFFERS = "cash_differs"  # torghut.domain.tie_out.CASH


DRIFTS = (DiscrepancyKind.POSITION_DIFFERS, DiscrepancyKind.CASH_DIFFERS)
"""Differences of an amount: they block new exposure beyond a tolerance."""

GRAVE = (
    DiscrepancyKind.DUPLICATE_ORDER,
    DiscrepancyKind.ORDER_EXCESS,
    DiscrepancyKind.ROWS_MISSING,
)
"""These block new exposure whatever they amount to."""

"""Plain words for everything closed that a reader of the command line meets.

Each dictionary has every member of its enum; a test holds them to it. `in_words` also takes what
is not in an enum (a later version's member, a broker's own status) and shows it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torghut.domain.events import EventKind
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.risk import DenyReason
from torghut.domain.submission import Proof

STATUS_WORDS: Mapping[str, str] = {
    DecisionStatus.PLANNED: "It is stored and waits for the risk check; nothing was sent.",
    DecisionStatus.APPROVED: "Risk approved it, and it waits to be sent; no order stands for it.",
    DecisionStatus.SUBMITTING: "Its order is on the way to the broker; the answer is not written.",
    DecisionStatus.IN_DOUBT: "The broker did not give a definite answer: an order may stand there.",
    DecisionStatus.SUBMITTED: "Its order stands at the broker.",
    DecisionStatus.CLOSED: "Done: its order has ended at the broker.",
    DecisionStatus.DENIED: "Our risk check denied it; nothing was sent.",
    DecisionStatus.REJECTED: "The broker refused it; no order stands for it.",
    DecisionStatus.EXPIRED: "Its time ran out before an order was placed.",
    DecisionStatus.CANCELED: "It was called off before an order was placed.",
}

REASON_WORDS: Mapping[str, str] = {
    Reason.ACCEPTED: "the broker accepted the order",
    Reason.RECOVERED: "the order was found at the broker by its client_order_id",
    Reason.REFUSED_BY_BROKER: "the broker refused the order, and it is not in its books",
    Reason.ACCOUNT_REFUSED: "the broker refused the keys or the account, not this order",
    Reason.RATE_LIMITED: "the broker takes no more requests for now",
    Reason.NEVER_LEFT: "the request did not leave this machine",
    Reason.NO_DEFINITE_ANSWER: "no definite answer came back",
    Reason.OWNER_LOST: "the process that was sending it stopped before it wrote the answer",
    Reason.PROVEN_ABSENT: "the broker surely has no such order, so it may be sent again",
    Reason.OUT_OF_TIME: "its expires_at has passed",
    Reason.ORDER_TERMINAL: "the broker will not execute more of the order",
    Reason.RISK_CHANGED: "risk had approved it, and denied it when it was about to be sent",
    Reason.FACTS_AWAITED: "it waits for quotes or the account's state",
    Reason.MARKET_CLOSED: "it is held while the market is closed",
}

DENY_WORDS: Mapping[str, str] = {
    DenyReason.TRADING_HALTED: "trading is halted",
    DenyReason.REDUCING_ONLY: "only orders that reduce a position are allowed now",
    DenyReason.ACCOUNT_BLOCKED: "the broker has blocked the account",
    DenyReason.SYMBOL_NOT_ENABLED: "the symbol is not among the enabled ones",
    DenyReason.SESSION_CLOSED: "the market is closed",
    DenyReason.DECISION_STALE: "the signal is too old",
    DenyReason.FACTS_UNAVAILABLE: "a fact that the check needs is not known",
    DenyReason.QUOTE_STALE: "the quote is too old",
    DenyReason.ORDER_QTY: "the order has too many shares",
    DenyReason.ORDER_NOTIONAL: "the order is worth too much",
    DenyReason.POSITION_NOTIONAL: "the position would be worth too much",
    DenyReason.OPEN_ORDERS: "too many orders are open",
    DenyReason.ORDER_RATE: "too many orders in too short a time",
    DenyReason.DAILY_LOSS: "the loss of the day is too large",
    DenyReason.BUYING_POWER: "the buying power does not cover it",
}

PROOF_WORDS: Mapping[str, str] = {
    Proof.ACCEPTED: "accepted",
    Proof.IN_DOUBT: "no definite answer",
    Proof.EXISTS: "an order of this id already stands there",
    Proof.REFUSED: "refused",
    Proof.ACCOUNT_REFUSED: "keys or account refused",
    Proof.RATE_LIMITED: "not taken, too many requests",
    Proof.NEVER_LEFT: "did not leave this machine",
    Proof.NOT_SENT: "not sent, because of the lookup before it",
    Proof.FOUND: "the order is there",
    Proof.ABSENT: "no such order",
    Proof.UNANSWERED: "could not be answered, which proves nothing",
}

EVENT_WORDS: Mapping[str, str] = {
    EventKind.DECISION_PLANNED: "stored",
    EventKind.DECISION_APPROVED: "approved by risk",
    EventKind.DECISION_DENIED: "denied by risk",
    EventKind.DECISION_EXPIRED: "expired",
    EventKind.DECISION_CANCELED: "called off",
    EventKind.DECISION_CLOSED: "closed, its order has ended",
    EventKind.SUBMIT_STARTED: "sending began",
    EventKind.SUBMITTED: "accepted by the broker",
    EventKind.REJECTED: "refused by the broker",
    EventKind.IN_DOUBT: "in doubt",
    EventKind.RECOVERED: "order found at the broker",
    EventKind.RETURNED: "surely not taken, may be sent again",
    EventKind.ADOPTED: "order of somebody else adopted",
    EventKind.FILL_RECORDED: "fill booked",
    EventKind.TRADING_STATE_CHANGED: "trading state changed",
    EventKind.DISCREPANCY_OPENED: "discrepancy opened",
    EventKind.LEASE_ACQUIRED: "account taken over",
}

ORIGIN_WORDS: Mapping[str, str] = {
    "submitted": "known from the answer to our call",
    "recovered": "found by lookup",
    "reconciled": "found in the broker's lists",
    "external": "not ours",
}

SOURCE_WORDS: Mapping[str, str] = {
    "submit": "the answer to our call",
    "lookup": "a lookup",
    "rest": "the broker's lists",
    "stream": "the stream",
}

DISCREPANCY_WORDS: Mapping[str, str] = {
    "order_differs": "the broker's order is not the one we asked for",
    "order_after_end": "an order appeared after the decision had ended without one",
    "duplicate_order": "two orders carry the same client_order_id",
}

_REASONS: Mapping[str, str] = {**REASON_WORDS, **DENY_WORDS}


def reason_in_words(reason: str | None) -> str:
    """Words for a `status_reason`, the reason itself if it has none, empty if there is none."""
    return "" if reason is None else _REASONS.get(reason, reason)


def in_words(words: Mapping[str, str], member: str) -> str:
    """Words for a member as stored, itself if it has none."""
    return words.get(member, member)

"""Plain words for everything closed that a reader of the command line meets.

Each dictionary has every member of its enum; a test holds them to it. `in_words` also takes what
is not in an enum (a later version's member, a broker's own status) and shows it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torghut.domain.deny_reasons import MEANING
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.events import EventKind
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.order_actions import ActionReason, ActionStatus
from torghut.domain.order_rules import OrderRule
from torghut.domain.plans import ItemReason, ItemStatus, PlanStatus
from torghut.domain.sagas import SagaStatus
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
    Reason.ATTEMPTS_SPENT: "it was tried as often as the settings allow",
    Reason.OUT_OF_TIME: "its expires_at has passed",
    Reason.ORDER_TERMINAL: "the broker will not execute more of the order",
    Reason.RISK_CHANGED: "risk had approved it, and denied it when it was about to be sent",
    Reason.CANCELED_BY_OPERATOR: "somebody called it off before it was sent",
    Reason.FACTS_AWAITED: "it waits for quotes or the account's state",
    Reason.MARKET_CLOSED: "it is held while the market is closed",
}

DENY_WORDS: Mapping[str, str] = MEANING

RULE_WORDS: Mapping[str, str] = {
    OrderRule.CRYPTO_TIME_IN_FORCE: "a coin pair is not traded with this time in force",
    OrderRule.CRYPTO_ORDER_TYPE: "a coin pair is not traded by this order type",
    OrderRule.CRYPTO_ORDER_CLASS: "a coin pair takes simple orders only",
    OrderRule.PRICE_INCREMENT: "a price has too many decimals",
    OrderRule.NOTIONAL_MINIMUM: "the amount of money is too small",
    OrderRule.COST_MINIMUM: "the order is worth too little",
    OrderRule.FRACTIONAL_TIME_IN_FORCE: "a fraction of a share is traded for the day only",
    OrderRule.FRACTIONAL_ORDER_CLASS: "a fraction of a share takes simple orders only",
    OrderRule.FRACTIONAL_SHORT: "a fraction of a share cannot be sold short",
    OrderRule.EXTENDED_HOURS_ORDER: "extended hours take limit orders for the day or gtc only",
    OrderRule.EXTENDED_HOURS_CLASS: "extended hours take simple orders only",
    OrderRule.TRAIL_PERCENT_MINIMUM: "the trail is too small",
    OrderRule.TRAIL_TIME_IN_FORCE: "a trailing stop does not go with this time in force",
    OrderRule.TRAIL_ORDER_CLASS: "a trailing stop is a simple order",
    OrderRule.CLASS_TIME_IN_FORCE: "orders with exits do not go with this time in force",
    OrderRule.OCO_ORDER_TYPE: "an OCO is a limit order",
    OrderRule.OCO_LIMIT_PRICE: "the limit price of an OCO is that of its take profit",
    OrderRule.ENTRY_OR_EXIT: "brackets and OTO open a position, an OCO closes one",
    OrderRule.TAKE_PROFIT_BEYOND_STOP: "take profit and stop lie the wrong way round",
    OrderRule.EXIT_DISTANCE: "an exit lies less than a cent beyond the price of the entry",
    OrderRule.AUCTION_WINDOW: "it is too late or too early for the auction",
}

PROOF_WORDS: Mapping[str, str] = {
    Proof.ACCEPTED: "accepted",
    Proof.IN_DOUBT: "no definite answer",
    Proof.EXISTS: "an order of this id already stands there",
    Proof.REFUSED: "refused",
    Proof.ACCOUNT_REFUSED: "keys or account refused",
    Proof.RATE_LIMITED: "not taken, too many requests",
    Proof.NEVER_LEFT: "did not leave this machine",
    Proof.NOT_SENT: "not sent, because of a check just before it",
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
    EventKind.REPLACED: "order replaced",
    EventKind.CANCELED: "order canceled",
    EventKind.ADOPTED: "order of somebody else adopted",
    EventKind.FILL_RECORDED: "fill booked",
    EventKind.POSITION_CHANGED: "position changed",
    EventKind.ENTRY_RECORDED: "fee, transfer or opening booked",
    EventKind.ACTION_REQUESTED: "cancel or replace asked for",
    EventKind.ACTION_STARTED: "cancel or replace being sent",
    EventKind.ACTION_RETURNED: "cancel or replace to be sent again",
    EventKind.ACTION_CONFIRMING: "cancel taken by the broker",
    EventKind.ACTION_IN_DOUBT: "cancel or replace in doubt",
    EventKind.ACTION_DONE: "cancel or replace done",
    EventKind.ACTION_REFUSED: "cancel or replace refused",
    EventKind.ACTION_MOOT: "cancel or replace came too late",
    EventKind.FLATTEN_CHANGED: "flattening went on",
    EventKind.PLAN_ACCEPTED: "plan stored",
    EventKind.PLAN_ITEM_PLACED: "ordered for a plan",
    EventKind.PLAN_FUNDED: "buys of a plan funded",
    EventKind.PLAN_ITEM_SETTLED: "item of a plan settled",
    EventKind.PLAN_ENDED: "plan ended",
    EventKind.SAGA_STARTED: "saga started",
    EventKind.SAGA_STEP_DONE: "step of a saga done",
    EventKind.SAGA_STEP_FAILED: "step of a saga failed, to be tried again",
    EventKind.SAGA_COMPENSATING: "saga failed, its steps are being undone",
    EventKind.SAGA_STEP_UNDONE: "step of a saga undone",
    EventKind.SAGA_COMPLETED: "saga completed",
    EventKind.SAGA_COMPENSATED: "saga undone",
    EventKind.TRADING_STATE_CHANGED: "trading state changed",
    EventKind.LIMITS_RELOADED: "limits read again",
    EventKind.LIMITS_REFUSED: "limits not read again, the old ones stay",
    EventKind.DISCREPANCY_OPENED: "discrepancy opened",
    EventKind.DISCREPANCY_CLOSED: "discrepancy closed",
    EventKind.DISCREPANCY_RESOLVED: "discrepancy resolved",
    EventKind.LEASE_ACQUIRED: "account taken over",
    EventKind.DEAD_LETTER_RETRIED: "refused event to be given again",
    EventKind.DEAD_LETTER_DROPPED: "refused event given up",
    EventKind.SINK_FORGOTTEN: "sink given up",
    EventKind.INBOX_DISMISSED: "refused decision dismissed",
    EventKind.TOKEN_CREATED: "token made",
    EventKind.TOKEN_REVOKED: "token revoked",
}

PLAN_WORDS: Mapping[str, str] = {
    PlanStatus.WORKING: "being carried out",
    PlanStatus.COMPLETED: "carried out",
    PlanStatus.STOPPED: "stopped; what was filled stays",
    PlanStatus.UNDONE: "stopped; what was filled was undone",
}

ITEM_WORDS: Mapping[str, str] = {
    ItemStatus.PENDING: "waits for its phase",
    ItemStatus.PLACED: "ordered",
    ItemStatus.SUCCEEDED: "filled",
    ItemStatus.FAILED: "not filled as wanted",
    ItemStatus.SKIPPED: "not ordered",
    ItemStatus.DUPLICATE: "the same as an earlier item",
}

ITEM_REASON_WORDS: Mapping[str, str] = {
    ItemReason.MICRO_ORDER: "the amount is below the plan's minimum",
    ItemReason.NO_WHOLE_SHARE: "the amount does not pay for one whole share",
    ItemReason.NO_POSITION: "nothing is held that could be sold",
    ItemReason.NOT_FUNDED: "the sells did not bring enough",
    ItemReason.PLAN_STOPPED: "the plan stopped before its turn",
    ItemReason.NO_QUOTE: "there was no quote for the symbol",
    ItemReason.PARTLY_FILLED: "the order ended before all of it was filled",
    ItemReason.NOT_FILLED: "the order ended without a fill",
    ItemReason.IDENTITY_TAKEN: "another decision has the same identity with another order",
}

SAGA_WORDS: Mapping[str, str] = {
    SagaStatus.RUNNING: "goes forward",
    SagaStatus.COMPENSATING: "is being undone",
    SagaStatus.COMPLETED: "every step is done",
    SagaStatus.COMPENSATED: "what had begun is undone",
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
    DiscrepancyKind.ORDER_DIFFERS: "the broker's order is not the one we asked for",
    DiscrepancyKind.ORDER_AFTER_END: "an order appeared after the decision had ended without one",
    DiscrepancyKind.DUPLICATE_ORDER: "two orders carry the same client_order_id",
    DiscrepancyKind.ORDER_EXCESS: "an order left that no approved decision covers",
    DiscrepancyKind.ORDER_STUCK: "an order has not moved on for too long",
    DiscrepancyKind.FILLS_MISSING: "an order says it is filled, and the broker lists no such fill",
    DiscrepancyKind.CANNOT_BE_BOOKED: "our books refuse what the broker shows",
    DiscrepancyKind.UNREADABLE_ROW: "the broker listed something that cannot be read",
    DiscrepancyKind.ROWS_MISSING: "rows of our books are gone",
    DiscrepancyKind.POSITION_DIFFERS: "the broker holds another quantity than our books",
    DiscrepancyKind.ALERT_REFUSED: "an alert came that could not be traded",
    DiscrepancyKind.CASH_DIFFERS: "the broker has another amount of cash than our books",
}

DISCREPANCY_ADVICE: Mapping[str, str] = {
    DiscrepancyKind.ORDER_DIFFERS: "Compare the fields; cancel or replace the order if it is not"
    " what you want; then resolve this.",
    DiscrepancyKind.ORDER_AFTER_END: "See that the order is canceled; once it has ended without a"
    " fill this ends by itself. If it was filled, decide about the position, then resolve this.",
    DiscrepancyKind.DUPLICATE_ORDER: "Cancel the second order at the broker, undo what it filled,"
    " ask the broker how that could be; then resolve this. New exposure is denied until then.",
    DiscrepancyKind.ORDER_EXCESS: "Find out who sent it, cancel it or undo what it filled; resolve"
    " this, then resume the account.",
    DiscrepancyKind.ORDER_STUCK: "Ask the broker about the order; this ends when it moves on.",
    DiscrepancyKind.FILLS_MISSING: "Compare the order with the account's activities at the broker;"
    " this ends when the fills are listed and booked. Limits count them as filled all the while.",
    DiscrepancyKind.CANNOT_BE_BOOKED: "The error says what is refused; this ends when it is booked."
    " If it never will be, correct the books by hand, then resolve this.",
    DiscrepancyKind.UNREADABLE_ROW: "Look at it at the broker; this ends when it can be read, for"
    " instance by a newer version. If it never will be, resolve this.",
    DiscrepancyKind.ROWS_MISSING: "They are read again from the broker, and this ends by itself;"
    " new exposure is denied until then. If it stays, the evidence says what the broker does not"
    " show either: find out who deleted rows, then resolve this.",
    DiscrepancyKind.POSITION_DIFFERS: "Find out what the broker did; this ends when both are equal,"
    " or take the broker's quantity over: torghut accept SYMBOL --reason WHY",
    DiscrepancyKind.ALERT_REFUSED: "Nothing was sent to the broker. Mend the alert or the settings,"
    " decide about the signal that was missed; then resolve this.",
    DiscrepancyKind.CASH_DIFFERS: "Find out what moved the money; this ends when both are equal, or"
    " take the broker's amount over: torghut accept cash --reason WHY",
}

ACTION_WORDS: Mapping[str, str] = {
    ActionStatus.REQUESTED: "It is stored and waits for its turn; nothing was sent in this try.",
    ActionStatus.SENDING: "It is on the way to the broker; the answer is not written.",
    ActionStatus.CONFIRMING: "The broker took it; the order has not ended yet.",
    ActionStatus.IN_DOUBT: "The broker gave no definite answer; the order is being looked at.",
    ActionStatus.DONE: "Done.",
    ActionStatus.REFUSED: "Refused; the order stands as it was.",
    ActionStatus.MOOT: "There was nothing left to act on.",
}

ACTION_REASON_WORDS: Mapping[str, str] = {
    ActionReason.WAITS_FOR_DECISION: "its decision is on the way to the broker, or in doubt",
    ActionReason.WAITS_FOR_REPLACE: "another replacement of the order is not settled",
    ActionReason.FACTS_AWAITED: "it waits for quotes or the account's state",
    ActionReason.CALLED_OFF: "the decision was called off before it was sent",
    ActionReason.ASKED_FOR: "the broker took the cancel, and the order has not ended yet",
    ActionReason.ORDER_CANCELED: "the order is canceled",
    ActionReason.ORDER_REPLACED: "the order is replaced",
    ActionReason.ORDER_ENDED: "the order had ended by itself",
    ActionReason.DECISION_ENDED: "the decision had ended without an order",
    ActionReason.FOLLOWS_SUCCESSOR: "the order was replaced; its successor is canceled",
    ActionReason.REPLACED_BY_OTHER: "somebody else replaced the order",
    ActionReason.STILL_OPEN: "the order is still open; it is asked for again",
    ActionReason.REFUSED_BY_BROKER: "the broker refused it",
    ActionReason.ORDER_UNKNOWN: "the broker does not know the order",
    ActionReason.DENIED_BY_RISK: "our risk check denied it",
    ActionReason.NOT_REPLACEABLE: "this order cannot be replaced",
    ActionReason.RATE_LIMITED: "the broker takes no more requests for now",
    ActionReason.NEVER_LEFT: "the request did not leave this machine",
    ActionReason.NO_DEFINITE_ANSWER: "no definite answer came back",
    ActionReason.OWNER_LOST: "the process that was sending it stopped before it wrote the answer",
}

_REASONS: Mapping[str, str] = {**REASON_WORDS, **DENY_WORDS, **RULE_WORDS}


def reason_in_words(reason: str | None) -> str:
    """Words for a `status_reason`, the reason itself if it has none, empty if there is none."""
    return "" if reason is None else _REASONS.get(reason, reason)


def in_words(words: Mapping[str, str], member: str) -> str:
    """Words for a member as stored, itself if it has none."""
    return words.get(member, member)

"""The life of a decision: one table, and the database holds the same one (P5).

```
            ┌────────▶ denied        (us: risk)
 planned ───┼────────▶ expired       (its time was over before it was judged)
            ▼
 approved ──┬────────▶ expired | canceled
    ▲       ▼
    │   submitting ──▶ rejected      (the broker, definitely)
    ├───────┤ │
    │       │ ▼
    │       └▶ submitted ──▶ closed  (its order is terminal at the broker)
    │            ▲
    └──────── in_doubt ──▶ rejected | expired
```

Read a row as: power failed right after this status was committed — what does the next start see?

- planned, approved: nothing left the machine; claimed again by the normal path. If an order is
  found all the same, as after a restored backup, the decision is neither judged nor sent nor
  expired: it takes its steps to submitted in one transaction (services/found_orders).
- submitting: the order may or may not have left. The next owner of the account (a newer fencing
  token) moves the row to in_doubt; it never posts on it.
- in_doubt: asked for at the broker by client_order_id = decision_hash until the answer is definite.
- submitted: the order exists; the reconciler follows it until it is terminal.
- the others are final. A late fact (an order found for an expired decision) becomes an execution
  and a discrepancy; it does not bring the decision back to life.

Every change is a compare-and-set: `UPDATE … WHERE status = <from>`; zero rows mean that another
writer won, which is no error.
"""

from __future__ import annotations

from enum import StrEnum


class DecisionStatus(StrEnum):
    """Where a decision stands. The broker's order status is never copied in here."""

    PLANNED = "planned"
    APPROVED = "approved"
    SUBMITTING = "submitting"
    IN_DOUBT = "in_doubt"
    SUBMITTED = "submitted"
    CLOSED = "closed"
    DENIED = "denied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELED = "canceled"


S = DecisionStatus

TRANSITIONS: dict[DecisionStatus, frozenset[DecisionStatus]] = {
    S.PLANNED: frozenset({S.APPROVED, S.DENIED, S.EXPIRED}),
    S.APPROVED: frozenset({S.SUBMITTING, S.EXPIRED, S.CANCELED}),
    S.SUBMITTING: frozenset(
        {
            S.SUBMITTED,
            S.REJECTED,
            S.IN_DOUBT,
            S.APPROVED,  # only when the request surely never left, or surely was not taken
        }
    ),
    S.IN_DOUBT: frozenset(
        {
            S.SUBMITTED,
            S.REJECTED,  # the broker refused, and the order is proven absent
            S.APPROVED,  # proof of absence: the same id may be sent again
            S.EXPIRED,  # proof of absence, and its time is over
        }
    ),
    S.SUBMITTED: frozenset({S.CLOSED}),
    S.CLOSED: frozenset(),
    S.DENIED: frozenset(),
    S.REJECTED: frozenset(),
    S.EXPIRED: frozenset(),
    S.CANCELED: frozenset(),
}

TERMINAL = frozenset(status for status, after in TRANSITIONS.items() if not after)

MAY_BE_LIVE = frozenset({S.SUBMITTING, S.IN_DOUBT, S.SUBMITTED})
"""Statuses in which an order of the decision may stand at the broker; risk counts them (P7)."""


class Reason(StrEnum):
    """Why a decision entered its status; stored as `status_reason`. Risk adds its DenyReason."""

    ACCEPTED = "accepted"
    RECOVERED = "recovered"  # its order was found at the broker, by client_order_id
    REFUSED_BY_BROKER = "refused_by_broker"
    ACCOUNT_REFUSED = "account_refused"  # keys or account, not this order; the account is halted
    RATE_LIMITED = "rate_limited"
    NEVER_LEFT = "never_left"
    NO_DEFINITE_ANSWER = "no_definite_answer"
    OWNER_LOST = "owner_lost"  # its process died or lost the lease between intent and outcome
    PROVEN_ABSENT = "proven_absent"
    ATTEMPTS_SPENT = "attempts_spent"  # tried as often as it may be; ends if it is proven absent
    OUT_OF_TIME = "out_of_time"
    ORDER_TERMINAL = "order_terminal"
    FACTS_AWAITED = "facts_awaited"  # judged when quote and account are known
    MARKET_CLOSED = "market_closed"  # policy `hold`: waits for the opening
    CANCELED_BY_OPERATOR = "canceled_by_operator"  # called off before it was sent
    RISK_CHANGED = "risk_changed"  # approved once, and denied when it was about to be sent again


def allowed(before: DecisionStatus, after: DecisionStatus) -> bool:
    """True if the table has the step `before → after`."""
    return after in TRANSITIONS[before]

"""The first lines of a decision's story: what it is, where it stands, what happens next. Pure.

Written for a person with open orders and little time: the status in plain words, why, when the
next step is due, and whether there is anything to do. A step that is overdue is said to be, as
it most often means that no daemon runs.
"""

from __future__ import annotations

from datetime import datetime

from rich.console import Group
from rich.text import Text

from torghut import cli_words as words
from torghut.cli_text import (
    Data,
    duration,
    line,
    moment,
    order_in_words,
    order_now,
    printable,
    standing,
    times,
)
from torghut.cli_words import in_words, reason_in_words
from torghut.domain.lifecycle import Reason

_OVERDUE_S = 15.0


def header(story: Data, now: datetime | None) -> Group:
    """What the decision is, where it stands and why, what happens next."""
    return Group(*headline(story, now))


def headline(story: Data, now: datetime | None) -> list[Text]:
    """The lines of the header."""
    decision = story["decision"]
    payload: Data = decision["payload"]
    extras = [payload["time_in_force"]]
    extras += ["extended hours"] if payload.get("extended_hours") else []
    if payload.get("order_class", "simple") != "simple":
        legs = [*(payload.get("take_profit") or {}).values()], payload.get("stop_loss") or {}
        extras += [payload["order_class"], *(f"take profit {price}" for price in legs[0])]
        extras += [f"stop loss {name.removesuffix('_price')} {px}" for name, px in legs[1].items()]
    what = order_in_words({**payload, "symbol": decision["symbol"], "side": decision["side"]})
    side, _, rest = what.partition(" ")
    reason = reason_in_words(decision["status_reason"])
    detail = printable(decision["status_detail"] or "")
    if detail.startswith(Reason.RISK_CHANGED):  # "risk_changed: <what reason says already>"
        detail = reason_in_words(Reason.RISK_CHANGED)
    why = f"{reason} ({detail})" if reason and detail else reason or detail
    status = decision["status"]
    return [
        line((f"{side.upper()} {rest} {', '.join(extras)}", "bold")),
        line(f"strategy {decision['strategy']}, account {decision['account']}"),
        line(standing(status), f": {in_words(words.STATUS_WORDS, status)}"),
        *([line(f"Why: {why}.")] if why else []),
        *(line(text) for text in next_step(story, now)),
    ]


def next_step(story: Data, now: datetime | None) -> list[str]:
    """What happens next, and what a person can do about it, a line each."""
    decision = story["decision"]
    status, expiry = decision["status"], moment(decision["expires_at"])
    if status == "in_doubt":
        asked, missed = decision["lookups"], decision["lookup_misses"]
        return [
            f"In doubt since {moment(decision['in_doubt_since'])} UTC; asked {times(asked)} since,"
            f" {times(missed)} the answer was 'no such order'.",
            f"Next: question {_due(decision, now)}. It is sent again only when the broker surely"
            " has no such order.",
            "Nothing for you to do while the questions go on. To look for yourself: the order's"
            f" client_order_id at the broker is {decision['decision_hash']}.",
        ]
    if status in ("planned", "approved"):
        step = "risk check" if status == "planned" else "sending"
        halted = decision["status_reason"] == "account_refused"
        mend = " Mend the keys or the account, then: torghut resume." if halted else ""
        return [f"Next: {step} {_due(decision, now)}; it expires at {expiry} UTC.{mend}"]
    if status == "submitting":
        return [
            f"Next: the answer {_late_answer(story, now)}. If the process that sends it has"
            " stopped, its successor asks the broker for the order, and never sends it blindly."
        ]
    if status == "submitted":
        orders = "; ".join(order_now(order) for order in story["executions"])
        return [f"Next: its order is followed until it ends ({orders or 'not booked yet'})."]
    if status == "closed":
        return [f"Its order: {order_now(order)}." for order in story["executions"]]
    late = "but an order has turned up for it all the same, see below"
    return [
        f"Final since {moment(decision['finalized_at'])} UTC,"
        f" {late if story['executions'] else 'nothing stands open'}."
        " To try again, submit a decision with another event_ts or intent; the same one is never"
        " sent again."
    ]


def _late_answer(story: Data, now: datetime | None) -> str:
    sent = [a["intended_at"] for a in story["attempts"] if a["operation"] == "submit"]
    if now is None or not sent:
        return "is written within seconds"
    late_s = (now - datetime.fromisoformat(sent[-1])).total_seconds()
    if late_s < _OVERDUE_S:
        return "is written within seconds"
    return f"is overdue by {duration(late_s)} (is a daemon running? torghut status)"


def _due(decision: Data, now: datetime | None) -> str:
    due = f"at {moment(decision['due_at'])} UTC"
    if now is None:
        return due
    late_s = (now - datetime.fromisoformat(decision["due_at"])).total_seconds()
    if late_s < 0:
        return f"{due} (in {duration(-late_s)})"
    if late_s < _OVERDUE_S:
        return f"{due} (now)"
    return f"{due}, overdue by {duration(late_s)} (is a daemon running? torghut status)"

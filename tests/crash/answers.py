"""The broker's answers to one submission, as faults of the simulator, and what each must end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

BROKER_TIMEOUT_S = 0.5
UNIQUE = "client_order_id must be unique"


class End(StrEnum):
    """What the decision must come to."""

    ORDER = "exactly one order"
    REFUSAL = "rejected with a reason, no order"


@dataclass(frozen=True)
class Answer:
    """`rules` are faults for the one client_order_id; `posts` are the POSTs it may see, or None
    where every kill may cost one more."""

    name: str
    rules: tuple[Mapping[str, Any], ...] = ()
    end: End = End.ORDER
    posts: frozenset[int] | None = frozenset({1})
    halts: bool = False  # the account, until an operator resumes it
    door: bool = False  # the connection itself is refused
    placed_before: bool = False  # the order stands at the broker already


def _once(name: str, kind: str, posts: int = 1, **detail: Any) -> Answer:
    """The first submission gets this answer, later ones the normal one."""
    rule = {"route": "submit", "kind": kind, "count": 1, **detail}
    return Answer(name, (rule,), posts=frozenset({posts}))


def _always(name: str, status: int, code: int, message: str) -> Answer:
    rule = {"route": "submit", "kind": "reject", "status": status, "code": code}
    return Answer(name, ({**rule, "message": message},), End.REFUSAL, posts=None)


def _halting(name: str, kind: str) -> Answer:
    rule = {"route": "submit", "kind": kind, "count": 1}
    return Answer(name, (rule,), posts=frozenset({2}), halts=True)


_RESET = {"route": "submit", "kind": "accept_then_reset", "count": 1}
_BLIND = {"route": "by_client_order_id", "count": 3}

ANSWERS = (
    # 200
    Answer("accepted"),
    _once("slow", "slow", delay_s=BROKER_TIMEOUT_S / 2),
    _once("late_visibility", "late_visibility", visible_after_s=1.0),
    # 200 that proves nothing
    _once("truncated_body", "truncated_body"),
    _once("garbage_body", "garbage_body"),
    _once("empty_body", "empty_body"),
    _once("other_id", "other_id"),
    # no answer, the order is there
    _once("accept_then_hang", "accept_then_hang"),
    _once("accept_then_reset", "accept_then_reset"),
    _once("accept_then_500", "accept_then_5xx", status=500, html=False),
    _once("accept_then_504_html", "accept_then_5xx", status=504, html=True),
    _once("late_accept", "late_accept", delay_s=0.4),
    Answer(
        "later_accept",  # after its absence was taken for proven: uniqueness is all that is left
        ({"route": "submit", "kind": "late_accept", "count": 1, "delay_s": 2.5},),
        posts=frozenset({1, 2}),
    ),
    Answer("lookups_fail", (_RESET, {**_BLIND, "kind": "refuse_5xx", "status": 503})),
    Answer("lookups_garbled", (_RESET, {**_BLIND, "kind": "garbage_body"})),
    # no answer, no order
    _once("refuse_503", "refuse_5xx", posts=2, status=503, html=False),
    _once("refuse_502_html", "refuse_5xx", posts=2, status=502, html=True),
    _once("reset_before", "reset_before", posts=2),
    _once("hang_before", "hang_before", posts=2),
    # 4xx that is no refusal
    _once("live_behind_403", "accept_then_refuse", status=403),
    _once("live_behind_422", "accept_then_refuse", status=422),
    _once("must_be_unique_422", "accept_then_refuse", status=422, code=40010001, message=UNIQUE),
    _once("must_be_unique_409", "accept_then_refuse", status=409, code=42210000, message=UNIQUE),
    # refused
    _always("no_buying_power", 403, 40310000, "insufficient buying power"),
    _always("unprocessable", 422, 42210000, "qty must be a whole number"),
    # not taken
    _once("rate_limit", "rate_limit", posts=2, rate_limit_headers=True, delay_s=0.2),
    _once("rate_limit_bare", "rate_limit", posts=2, rate_limit_headers=False),
    _once("rate_limit_html", "rate_limit", posts=2, html=True, rate_limit_headers=False),
    _halting("unauthorized", "unauthorized"),
    _halting("forbidden", "forbidden"),
    Answer("never_left", door=True),
)

BY_NAME: Mapping[str, Answer] = {answer.name: answer for answer in ANSWERS}

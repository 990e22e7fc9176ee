"""One decision's whole story: the sections of `torghut explain`, a timeline, and bars.

Words are those of the command line (torghut.cli_headline, cli_verdict, cli_words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, NamedTuple

from fastapi import APIRouter
from sqlalchemy import Connection

from torghut import cli_words as words
from torghut.cli_headline import headline
from torghut.cli_text import Data, after, fields, order_in_words
from torghut.cli_verdict import check_name, check_told, compares
from torghut.cli_words import in_words, reason_in_words
from torghut.domain.lifecycle import TERMINAL
from torghut.domain.limits import AT_LEAST
from torghut.storage import queries
from torghut.web.console.frame import Asked, Frame
from torghut.web.problems import Problem

_FULL = Decimal(100)


class Step(NamedTuple):
    """One line of the timeline."""

    at: str
    after: str
    stage: str
    title: str
    detail: str


class Bar(NamedTuple):
    """A check: how much of its limit was used; `share` and `mark` in per cent of the bar."""

    name: str
    told: str
    passed: bool
    share: Decimal
    mark: Decimal
    at_least: bool


def add(routes: APIRouter, frame: Frame) -> None:
    """The route of a decision's page."""
    frame.page(routes, "/console/decisions/{decision_hash}", "decision.html", partial(_story))


def bars(checks: Sequence[Data]) -> list[Bar]:
    """The checks that have a number to compare with, those that failed first."""
    found = [bar for check in checks if compares(check) and (bar := _bar(check)) is not None]
    return sorted(found, key=lambda bar: (bar.passed, -bar.share if not bar.at_least else 0))


def timeline(story: Data) -> list[Step]:
    """All that happened, in the order of time."""
    start = story["decision"]["created_at"]
    steps = [
        *_received(story),
        *_judged(story["verdicts"]),
        *_sent(story["attempts"]),
        *_seen(story["executions"]),
        *_filled(story["fills"]),
        *_reported(story["events"]),
        *_differed(story["discrepancies"]),
    ]
    steps.sort(key=lambda step: step[0])
    return [Step(at, after(at, start), stage, title, detail) for at, stage, title, detail in steps]


def _story(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    story = queries.story(tx, asked.path["decision_hash"])
    if story is None:
        raise Problem(404, "unknown-decision", "no decision has this decision_hash")
    decision = story["decision"]
    verdicts = [
        {
            **verdict,
            "bars": bars(verdict["checks"]),
            "others": [_other(check) for check in verdict["checks"] if _bar(check) is None],
        }
        for verdict in story["verdicts"]
    ]
    open_order = any(not order["terminal"] for order in story["executions"])
    return {
        "story": story,
        "decision": decision,
        "headline": [text.plain for text in headline(story, asked.now)],
        "verdicts": verdicts,
        "timeline": timeline(story),
        "can_cancel": decision["status"] not in TERMINAL or open_order,
    }


# ---------------------------------------------------------------- bars


def _bar(check: Data) -> Bar | None:
    measured, limit = _number(check["measured"]), _number(check["limit"])
    if measured is None or limit is None or not compares(check):
        return None
    whole = max(abs(measured), abs(limit))
    if not whole:
        return None
    name = check_name(check)
    return Bar(
        name,
        check_told(check),
        bool(check["passed"]),
        _share(abs(measured), whole),
        _share(abs(limit), whole),
        name in AT_LEAST,
    )


def _share(part: Decimal, whole: Decimal) -> Decimal:
    return (part / whole * _FULL).quantize(Decimal("0.1"))


def _other(check: Data) -> dict[str, object]:
    told = check_told(check) if compares(check) else f"{check['code']}: no limit set"
    return {"name": check_name(check), "passed": check["passed"], "told": told}


def _number(value: object) -> Decimal | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# ---------------------------------------------------------------- the timeline's parts

_Raw = tuple[str, str, str, str]
"""Instant, stage, title, detail."""


def _received(story: Data) -> list[_Raw]:
    decision = story["decision"]
    what = order_in_words({**decision["payload"], **_order_names(decision)})
    return [(decision["created_at"], "identity", "received", f"{what}, from {decision['source']}")]


def _order_names(decision: Data) -> dict[str, object]:
    return {name: decision[name] for name in ("symbol", "side", "type", "qty", "notional")}


def _judged(verdicts: Sequence[Data]) -> list[_Raw]:
    return [
        (
            verdict["judged_at"],
            "verdict",
            verdict["outcome"],
            reason_in_words(verdict["deny_reason"])
            or f"{sum(1 for check in verdict['checks'] if check['passed'])} checks passed",
        )
        for verdict in verdicts
    ]


def _sent(attempts: Sequence[Data]) -> list[_Raw]:
    found: list[_Raw] = []
    for attempt in attempts:
        submit = attempt["operation"] == "submit"
        what = f"attempt {attempt['attempt_no']}: order sent" if submit else "asked for the order"
        found.append((attempt["intended_at"], "attempt", what, attempt["client_order_id"]))
        if attempt["answered_at"] is not None:
            parts = (
                f"HTTP {attempt['http_status']}" if attempt["http_status"] else "",
                f"code {attempt['broker_code']}" if attempt["broker_code"] else "",
                attempt["message"] or "",
            )
            answer = in_words(words.PROOF_WORDS, attempt["outcome"])
            said = ", ".join(part for part in parts if part)
            found.append((attempt["answered_at"], "answer", answer, said))
    return found


def _seen(orders: Sequence[Data]) -> list[_Raw]:
    return [
        (
            event["observed_at"],
            "order",
            f"order {event['status']}",
            f"{event['cum_qty']} filled, seen in {in_words(words.SOURCE_WORDS, event['source'])}",
        )
        for order in orders
        for event in order["events"]
    ]


def _filled(fills: Sequence[Data]) -> list[_Raw]:
    return [
        (
            fill["recorded_at"],
            "fill",
            f"{fill['side']} {fill['last_qty']} {fill['symbol']} at {fill['last_px']}",
            f"{fill['leaves_qty']} left; executed {fill['transact_time']}",
        )
        for fill in fills
    ]


def _reported(events: Sequence[Data]) -> list[_Raw]:
    return [
        (
            event["created_at"],
            "event",
            in_words(words.EVENT_WORDS, event["kind"]),
            f"{event['kind']} by {event['actor']}; {fields(event['payload'])}".rstrip("; "),
        )
        for event in events
    ]


def _differed(found: Sequence[Data]) -> list[_Raw]:
    steps: list[_Raw] = []
    for item in found:
        kind = in_words(words.DISCREPANCY_WORDS, item["kind"])
        steps.append((item["opened_at"], "discrepancy", kind, fields(item["evidence"])))
        if item["resolved_at"]:
            steps.append((item["resolved_at"], "discrepancy", "ended", item["resolution"] or ""))
    return steps

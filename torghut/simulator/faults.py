"""Seeded faults: which requests go wrong, and how.

A rule names a route (or `*`), a kind, and when it strikes: with a probability, or a number of
times after skipping some matches, optionally for one symbol or client_order_id only. The first
rule that strikes decides. Whether it strikes is drawn from the seed, the route and the number
of the request on that route, so a run can be repeated.

Kinds:

| kind | work done | client sees |
|---|---|---|
| accept_then_hang | yes | nothing for hold_s, then a reset |
| accept_then_reset | yes | connection reset |
| accept_then_5xx | yes | 5xx, JSON or HTML |
| accept_then_refuse | yes | 403 or 422 |
| truncated_body | yes | half of the body, then the end |
| garbage_body | yes | 200 which is not JSON |
| empty_body | yes | 200 without a body |
| other_id | yes | 200 with another order's ids |
| late_visibility | yes | 200; lookups do not show the order for visible_after_s |
| slow | yes | the answer after delay_s |
| late_accept | after delay_s | connection reset, or a hang |
| late_activities | yes | 200; the order's fills are listed delay_s late |
| late_cancel | after delay_s | 204; the order stays open meanwhile, and may fill |
| late_replace | after delay_s | 200; the old order is pending_replace, the new one waits |
| fills_first | partly | the usual answer; the order fills before the change takes effect |
| fills_part_first | yes | the same, with half of what was open |
| refuse_5xx | no | 5xx, JSON or HTML |
| reset_before | no | connection reset |
| hang_before | no | nothing for hold_s, then a reset |
| rate_limit | no | 429, JSON or HTML, with X-RateLimit headers (Reset in delay_s) or without |
| unauthorized, forbidden | no | 401, 403 |
| reject | no | status, code and message of the rule |
| any | - | one of the kinds that apply to the route, drawn evenly |

The last five are for one route: submit, cancel, replace, and both of these. An error for a change
that was made is `accept_then_refuse` or `accept_then_5xx`. `any` leaves out `unauthorized`,
`forbidden` and `reject`: they are definite answers, which end a run or an order instead of making
it doubtful; and `late_activities`, which the client does not see in the answer.

The route `stream` is the trade_updates websocket. `*` does not mean it, and it has kinds of its
own, each decided message by message:

| kind | client sees |
|---|---|
| drop | the connection cut in place of the message |
| mute | nothing of the message; pings are answered |
| duplicate | the message twice |
| reorder | the message after the next one, or after delay_s |
| malformed | broken_json, missing_field, wrong_type or unknown_event; `message` names one |
| freeze | nothing at all from here on, pongs included, until hold_s have passed |
| never_authorize | no answer to its keys |
| refuse_authorization | its keys refused |
| any | drop, mute, duplicate, reorder or malformed |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

ANYWHERE = ("slow", "refuse_5xx", "reset_before", "hang_before", "rate_limit", "truncated_body",
            "garbage_body", "empty_body")  # fmt: skip
AFTER_WORK = ("accept_then_hang", "accept_then_reset", "accept_then_5xx", "accept_then_refuse")
SUBMIT_ONLY = ("late_visibility", "late_accept")
RACES = ("fills_first", "fills_part_first")
ROUTE_ONLY = {
    "submit": SUBMIT_ONLY,
    "replace": ("late_replace", *RACES),
    "cancel": ("late_cancel", *RACES),
}
DEFINITE = ("unauthorized", "forbidden", "reject")
STREAM = "stream"
ON_MESSAGE = ("drop", "mute", "duplicate", "reorder", "malformed")
ON_SIGN_IN = ("never_authorize", "refuse_authorization")
STREAM_KINDS = (*ON_MESSAGE, "freeze", *ON_SIGN_IN, "any")
MALFORMATIONS = ("broken_json", "missing_field", "wrong_type", "unknown_event")
KINDS = (*AFTER_WORK, *ANYWHERE, "other_id", *SUBMIT_ONLY, "late_activities", "late_cancel",
         "late_replace", *RACES, *DEFINITE, "any")  # fmt: skip
WRITES = frozenset({"submit", "replace", "cancel", "cancel_all", "close_position", "close_all"})
SHOWS_ORDER = frozenset({"submit", "replace", "get_order", "by_client_order_id"})
SERVER_ERRORS = (500, 502, 503, 504)
DEFAULT_DELAY_S = {
    "slow": 0.5, "late_accept": 2.0, "rate_limit": 1.0, "late_activities": 2.0, "late_cancel": 2.0,
    "late_replace": 2.0, "fills_part_first": 0.05, "reorder": 0.05,
}  # fmt: skip


@dataclass(slots=True)
class FaultRule:
    """One rule. Durations in seconds; None leaves a detail to the draw."""

    route: str
    kind: str
    probability: float = 1.0
    count: int | None = None
    after: int = 0
    symbol: str | None = None
    client_order_id: str | None = None
    status: int | None = None
    code: int | None = None
    message: str | None = None
    html: bool | None = None
    hang: bool | None = None
    rate_limit_headers: bool | None = None
    delay_s: float | None = None
    hold_s: float | None = None
    visible_after_s: float = 2.0
    id: int = 0
    matches: int = 0
    hits: int = 0

    def json(self) -> dict[str, Any]:
        """The rule and its counters."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong with one request, with every detail drawn."""

    kind: str
    status: int
    code: int | None
    message: str | None
    html: bool
    hang: bool
    rate_limit_headers: bool
    delay_s: float
    hold_s: float
    visible_after_s: float


def kinds_for(route: str) -> tuple[str, ...]:
    """The kinds that `any` chooses from on a route."""
    if route == STREAM:
        return ON_MESSAGE
    kinds: tuple[str, ...] = ANYWHERE
    if route in WRITES:
        kinds = (*AFTER_WORK, *kinds)
    if route in SHOWS_ORDER:
        kinds = (*kinds, "other_id")
    return (*kinds, *ROUTE_ONLY.get(route, ()))


def parse_fault(text: str) -> FaultRule:
    """Read a rule from the command line: `all:PROBABILITY`, or `ROUTE:KIND:WHEN[:NAME=VALUE,…]`
    where WHEN is a probability, `once`, or `xN` for the first N requests.

    Raises ValueError that shows the form.
    """
    parts = text.split(":")
    if len(parts) == 2 and parts[0] == "all":
        parts = ["*", "any", parts[1]]
    if len(parts) not in (3, 4):
        raise ValueError(f"fault {text!r}: write ROUTE:KIND:WHEN, for example submit:slow:0.2")
    route, kind, when = parts[:3]
    values: dict[str, Any] = {"route": route, "kind": kind}
    try:
        if when == "once" or when.startswith("x"):
            values["count"] = 1 if when == "once" else int(when[1:])
        else:
            values["probability"] = float(when)
        for pair in parts[3].split(",") if len(parts) == 4 else ():
            name, _, value = pair.partition("=")
            values[name] = _read_value(name, value)
        return checked(FaultRule(**values))
    except (ValueError, TypeError) as error:
        raise ValueError(f"fault {text!r}: {error}") from error


def _read_value(name: str, value: str) -> Any:
    if name in ("status", "code", "after", "count"):
        return int(value)
    if name in ("html", "hang", "rate_limit_headers"):
        return value.lower() in ("true", "1", "yes")
    return float(value) if name.endswith("_s") else value


def checked(rule: FaultRule) -> FaultRule:
    """The rule, if its values make sense. Raises ValueError."""
    kinds = STREAM_KINDS if rule.route == STREAM else KINDS
    if rule.kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, not {rule.kind!r}")
    if rule.kind == "malformed" and rule.message not in (None, *MALFORMATIONS):
        raise ValueError(f"message must be one of {', '.join(MALFORMATIONS)}")
    if not 0 <= rule.probability <= 1:
        raise ValueError(f"probability must be between 0 and 1, not {rule.probability}")
    for name in ("delay_s", "hold_s", "visible_after_s", "count", "after"):
        value = getattr(rule, name)
        if value is not None and value < 0:
            raise ValueError(f"{name} must be >= 0, not {value}")
    return rule


class FaultPlan:
    """The rules in force."""

    def __init__(self, seed: int, hold_s: float = 15.0, routes: Sequence[str] = ()) -> None:
        self.rules: list[FaultRule] = []
        self._routes = routes
        self._seed = seed
        self._hold_s = hold_s
        self._requests: dict[str, int] = {}
        self._last_id = 0

    def add(self, rule: FaultRule) -> FaultRule:
        """Put a rule behind the others; its id is given here. Raises ValueError."""
        self.check(rule)
        self._last_id += 1
        added = replace(rule, id=self._last_id, matches=0, hits=0)
        self.rules.append(added)
        return added

    def check(self, rule: FaultRule) -> None:
        """Raises ValueError for a rule that can never strike or makes no sense."""
        checked(rule)
        if self._routes and rule.route not in ("*", *self._routes, STREAM):
            known = ", ".join(("*", *self._routes, STREAM))
            raise ValueError(f"route must be one of {known}, not {rule.route!r}")

    def remove(self, rule_id: int | None = None) -> int:
        """Remove one rule, or all; the number removed."""
        before = len(self.rules)
        self.rules = [r for r in self.rules if rule_id is not None and r.id != rule_id]
        return before - len(self.rules)

    def decide(
        self,
        route: str,
        symbol: str | None = None,
        client_order_id: str | None = None,
        kinds: Sequence[str] | None = None,
    ) -> Fault | None:
        """The fault of the next request or message on a route, or None; of `kinds` if given."""
        number = self._requests[route] = self._requests.get(route, 0) + 1
        for rule in self.rules:
            if rule.route != route and (rule.route != "*" or route == STREAM):
                continue
            if kinds is not None and rule.kind not in kinds:
                continue
            if rule.symbol not in (None, symbol):
                continue
            if rule.client_order_id not in (None, client_order_id):
                continue
            rule.matches += 1
            if rule.matches <= rule.after or (rule.count is not None and rule.hits >= rule.count):
                continue
            rng = random.Random(f"{self._seed}:{route}:{number}:{rule.id}")
            if rng.random() < rule.probability:
                rule.hits += 1
                return self._draw(rule, route, rng)
        return None

    def _draw(self, rule: FaultRule, route: str, rng: random.Random) -> Fault:
        mixed = rule.kind == "any"
        kind = rng.choice(kinds_for(route)) if mixed else rule.kind

        def flag(value: bool | None, default: bool) -> bool:
            if value is not None:
                return value
            return rng.random() < 0.5 if mixed else default

        return Fault(
            kind=kind,
            status=_status(kind, rule.status, rng),
            code=rule.code,
            message=rule.message or (rng.choice(MALFORMATIONS) if kind == "malformed" else None),
            html=flag(rule.html, False),
            hang=flag(rule.hang, False),
            rate_limit_headers=flag(rule.rate_limit_headers, True),
            delay_s=DEFAULT_DELAY_S.get(kind, 0.0) if rule.delay_s is None else rule.delay_s,
            hold_s=self._hold_s if rule.hold_s is None else rule.hold_s,
            visible_after_s=rule.visible_after_s,
        )


def _status(kind: str, status: int | None, rng: random.Random) -> int:
    if status is not None:
        return status
    if kind.endswith("_5xx"):
        return rng.choice(SERVER_ERRORS)
    return rng.choice((403, 422)) if kind == "accept_then_refuse" else 403

"""What to do while the market is closed: TORGHUT_SESSION_POLICY = send | hold | deny, and another
one for a strategy that TORGHUT_SESSION_POLICIES names.

`send` asks nothing: the broker queues the order. `deny` makes the session a fact for risk. `hold`
puts the decision off until the market opens, or until it expires. What closes positions for a
person is sent at any time (P11).

An order for the opening auction is sent while the market is closed, and at no other time: when
the broker takes it is a rule about orders (torghut.domain.order_rules).

An order for extended hours may be sent before and after the regular session as well. When the
market is open says the broker's clock where it answers, else the exchange's calendar
(torghut.domain.sessions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from torghut.domain.order_actions import OPERATOR
from torghut.domain.orders import TimeInForce
from torghut.domain.sessions import MarketClock, order_session
from torghut.storage.rows import DecisionRow

Policy = Literal["send", "hold", "deny"]


@dataclass(frozen=True, slots=True)
class SessionPolicies:
    """What each strategy does outside the market's hours."""

    default: Policy
    by_strategy: Mapping[str, Policy]

    @property
    def asks(self) -> bool:
        """True if the hours matter to any strategy."""
        return any(policy != "send" for policy in (self.default, *self.by_strategy.values()))

    def of(self, strategy: str) -> Policy:
        """The policy of one strategy."""
        if strategy == OPERATOR:
            return "send"
        return self.by_strategy.get(strategy, self.default)


@dataclass(frozen=True, slots=True)
class SessionGate:
    """The policies at one instant; `clock`: the broker's, None if it is not known."""

    policies: SessionPolicies
    now: datetime
    clock: MarketClock | None

    def open_for(self, row: DecisionRow) -> bool | None:
        """May the order be sent by the market's hours; None unless the policy is `deny`."""
        if self.policies.of(row.strategy) != "deny":
            return None
        return self._opens_at(row) is None

    def held_until(self, row: DecisionRow) -> datetime | None:
        """When the market opens for the order; None if it is open or the policy is not `hold`."""
        return self._opens_at(row) if self.policies.of(row.strategy) == "hold" else None

    def _opens_at(self, row: DecisionRow) -> datetime | None:
        order = row.order
        if order.time_in_force is TimeInForce.OPG:
            return None
        return order_session(
            order.symbol, self.now, extended_hours=order.extended_hours, clock=self.clock
        )


ANY_SESSION = SessionGate(SessionPolicies("send", {}), datetime.min.replace(tzinfo=UTC), None)
"""For orders that the market's hours do not hold up."""

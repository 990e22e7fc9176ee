"""What to do while the market is closed: TORGHUT_SESSION_POLICY = send | hold | deny.

`send` asks nothing: the broker queues the order. `deny` makes the session a fact for risk. `hold`
puts the decision off until the market opens, or until it expires.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from torghut.domain.sessions import Phase, session_state

Policy = Literal["send", "hold", "deny"]


class SessionGate:
    """The session policy, applied to symbols at an instant."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def asked(self, symbols: Iterable[str], now: datetime) -> dict[str, bool]:
        """symbol → is its market open; empty unless the policy is `deny`."""
        if self._policy != "deny":
            return {}
        return {s: session_state(s, now).phase is Phase.OPEN for s in symbols}

    def held_until(self, symbols: Iterable[str], now: datetime) -> dict[str, datetime]:
        """symbol → next opening, for closed markets; empty unless the policy is `hold`."""
        if self._policy != "hold":
            return {}
        states = {s: session_state(s, now) for s in symbols}
        return {s: state.next_open for s, state in states.items() if state.phase is not Phase.OPEN}

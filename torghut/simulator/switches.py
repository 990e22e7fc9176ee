"""Behaviour switches: settled questions about the real broker, and knobs for tests.

Each of the first nine is a point on which measurements, documentation or clients of the real
API disagree; the default is the measured behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

CHOICES: dict[str, tuple[Any, ...]] = {
    "uniqueness": ("permanent", "active", "off"),
    "duplicate_status": (422, 409),
    "duplicate_code": ("auto", 40010001, 42210000),
    "repeat_cancel": ("success", "refuse"),
    "extended_hours": ("day_gtc", "day"),
    "client_order_id_max": (128, 48),
    "replace_qty": ("original", "leaves"),
    "exit_stop": ("held", "new"),
    "held_listed": ("closed", "open"),
    "stream_frames": ("binary", "text"),
    "stream_connections": ("one", "many"),
}
PROBABILITIES = ("partial_fill_probability", "async_reject_probability")
AMOUNTS = (
    "fill_delay_ms", "cancel_delay_ms", "replace_delay_ms", "activity_delay_ms", "fill_clock_ms",
    "crypto_fee_bps",
)  # fmt: skip
STICKY = ("pending_new", "accepted", "pending_cancel", "pending_replace")


@dataclass(frozen=True, slots=True)
class Switches:
    """How the broker behaves, apart from faults.

    - `uniqueness` of client_order_id: `permanent`, `active` (only against open orders) or `off`
      (the control that must make duplicate tests fail).
    - `duplicate_status`, `duplicate_code`: how a duplicate id is refused; `auto` is 42210000
      against an open order and 40010001 against a closed one.
    - `repeat_cancel`: canceling a canceled order succeeds or is refused.
    - `replace_qty`: a replacement without qty asks for the original quantity or the open rest.
    - `exit_stop`: while its take profit works, the stop of a group is shown as `held` or as `new`.
    - `held_listed`: the list in which `held` orders are, `closed` or `open`.
    - `replace_delay_ms`: how long a replaced order stays `pending_replace`; 0: not at all.
    - `activity_delay_ms`: how long after its fill an activity is listed.
    - `fill_clock_ms`: fills are stamped in steps of so many milliseconds, so that many of them
      share an instant; 0: as they come.
    - `stuck`: statuses, separated by commas, which orders do not leave by themselves.
    - `hold_fills`: orders rest and fill only by force.
    - `stream_frames`: trade updates as JSON in binary frames, as the paper environment sends
      them, or in text frames.
    - `stream_connections`: with `one` a second websocket is refused with 429 as long as the first
      is there.
    """

    uniqueness: str = "permanent"
    duplicate_status: int = 422
    duplicate_code: str | int = "auto"
    repeat_cancel: str = "success"
    extended_hours: str = "day_gtc"
    client_order_id_max: int = 128
    replace_qty: str = "original"
    exit_stop: str = "held"
    held_listed: str = "closed"
    partial_fill_probability: float = 0.1
    async_reject_probability: float = 0.0
    fill_delay_ms: int = 5
    cancel_delay_ms: int = 5
    replace_delay_ms: int = 0
    activity_delay_ms: int = 0
    fill_clock_ms: int = 0
    crypto_fee_bps: int = 0
    stuck: str = ""
    hold_fills: bool = False
    stream_frames: str = "binary"
    stream_connections: str = "one"

    def sticks(self, status: str) -> bool:
        """Do orders stay in this status until they are let go?"""
        return bool(self.stuck) and status in self.stuck.split(",")

    @property
    def crypto_fee(self) -> Decimal:
        """The fee as a fraction of the received coins."""
        return Decimal(self.crypto_fee_bps) / 10000

    def changed(self, changes: dict[str, Any]) -> Switches:
        """A copy with some switches set. Raises ValueError that names the switch."""
        known = {field.name for field in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown switch {name!r}; known: {', '.join(sorted(known))}")
            _check(name, value)
        return replace(self, **changes)


def _check(name: str, value: Any) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        allowed = ", ".join(str(choice) for choice in CHOICES[name])
        raise ValueError(f"switch {name} must be one of {allowed}, not {value!r}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in PROBABILITIES and not (number and 0 <= value <= 1):
        raise ValueError(f"switch {name} must be between 0 and 1, not {value!r}")
    if name in AMOUNTS and not (number and value >= 0):
        raise ValueError(f"switch {name} must be >= 0, not {value!r}")
    if name == "stuck" and not (isinstance(value, str) and _known(value)):
        raise ValueError(f"switch stuck takes some of {','.join(STICKY)}, not {value!r}")
    if name == "hold_fills" and not isinstance(value, bool):
        raise ValueError(f"switch hold_fills must be true or false, not {value!r}")


def _known(statuses: str) -> bool:
    return not statuses or all(status in STICKY for status in statuses.split(","))

"""What lookups and lists do not show yet: new orders, and activities that come late.

Both are on request only: the fault `late_visibility` hides an order, `late_activities` the fills of
one order, the switch `activity_delay_ms` all fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torghut.simulator.book import BookEvent
from torghut.simulator.orders import Order
from torghut.simulator.switches import Switches


class Visibility:
    """Hides ids until an instant of the clock of elapsed time."""

    def __init__(self, elapsed_s: Callable[[], float], switches: Callable[[], Switches]) -> None:
        self._elapsed_s = elapsed_s
        self._switches = switches
        self._until_s: dict[str, float] = {}
        self._late_by_s: dict[str, float] = {}

    def clear(self) -> None:
        """Show everything."""
        self._until_s.clear()
        self._late_by_s.clear()

    def hide(self, orders: Iterable[Order], for_s: float) -> None:
        """Leave orders out of lookups by client id and of lists for some seconds."""
        for order in orders:
            self._until_s[order.id] = self._elapsed_s() + for_s

    def delay_activities(self, orders: Iterable[Order], by_s: float) -> None:
        """List the fills of these orders so many seconds after they happened."""
        self._late_by_s |= {order.id: by_s for order in orders}

    def observe(self, event: BookEvent) -> None:
        """Hide the activity of a fill, if it is to come late."""
        if event.fill is None:
            return
        late_s = self._late_by_s.get(event.order.id, self._switches().activity_delay_ms / 1000)
        if late_s:
            self._until_s[event.fill.id] = self._elapsed_s() + late_s

    def shows(self, id_: str) -> bool:
        """False while an order or an activity is hidden."""
        until_s = self._until_s.get(id_)
        if until_s is None:
            return True
        if until_s <= self._elapsed_s():
            del self._until_s[id_]
            return True
        return False

"""Writers, a sink that keeps what it is given, and readers that are wrong on purpose."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from tests.factories import decision
from torghut.domain.events import Event, EventKind
from torghut.domain.outbox import Message
from torghut.services.intake import IntakeDesk
from torghut.services.relay import Relay
from torghut.storage import control
from torghut.storage.database import Database

NOW = datetime(2026, 1, 5, 21, tzinfo=UTC)


class Kept:
    """A sink that keeps what it is given; `answer` may raise for a message."""

    def __init__(self, answer: Callable[[Message], None] = lambda _: None) -> None:
        self.answer = answer
        self.messages: list[Message] = []

    def publish(self, message: Message) -> None:
        self.answer(message)
        self.messages.append(message)

    def close(self) -> None:
        return

    @property
    def ids(self) -> list[str]:
        return [message.event.event_id for message in self.messages]

    def steps(self) -> list[str]:
        """What `write` called the events, in the order they came; others are left out."""
        payloads = [message.event.payload for message in self.messages]
        return [str(payload["reason"]) for payload in payloads if "reason" in payload]


def relay(database: Database, sink: Kept, name: str = "test", **over: object) -> Relay:
    """A relay of its own process."""
    named: dict[str, object] = {"owner": "one", "lease_ttl_s": 30.0, "rng": random.Random(1)}
    return Relay(name, sink, database, **{**named, **over})  # type: ignore[arg-type]


def drain(one: Relay, now: datetime = NOW) -> dict[str, int]:
    """Pass after pass until there is nothing left; the counts, added up."""
    total: dict[str, int] = defaultdict(int)
    while counts := one.run_once(now):
        for what, count in counts.items():
            total[what] += count
        if not counts.get("delivered") and not counts.get("dead"):
            break
    return dict(total)


def write(tx: Connection, hash_: str | None, *steps: str) -> None:
    """Append an event for each step."""
    kind = EventKind.SUBMITTED
    events = [Event(kind, "test", "paper", hash_, {"reason": step, "detail": ""}) for step in steps]
    control.add_events(tx, events, now=NOW)


def lock(tx: Connection, hash_: str) -> None:
    """Take the decision's row, as each of its changes does."""
    tx.execute(
        text("SELECT 1 FROM trade_decisions WHERE decision_hash = :h FOR UPDATE"), {"h": hash_}
    )


def decisions(database: Database, count: int) -> list[str]:
    """Hashes of new decisions."""
    desk = IntakeDesk(database, lambda: NOW, lambda _: None)
    batch = [decision(intent=f"n{n}") for n in range(count)]
    return [answer.decision_hash for answer in desk.accept(batch, source="test")]


def stored(database: Database) -> list[tuple[int, str, str | None]]:
    """(seq, id, decision) of every event."""
    with database.transaction() as tx:
        rows = tx.execute(text("SELECT event_seq, event_id::text, decision_hash FROM events"))
        return [(row[0], row[1], row[2]) for row in rows]


def deduped(ids: Iterable[str]) -> list[str]:
    """First arrivals, in order: what a consumer keeps."""
    return list(dict.fromkeys(ids))


def faults(database: Database, arrived: list[str], wanted: set[str] | None = None) -> list[str]:
    """What does not hold of first arrivals: each event once, in order per decision."""
    events = {
        id_: (seq, hash_) for seq, id_, hash_ in stored(database) if wanted is None or id_ in wanted
    }
    kept = deduped(arrived)
    found = [f"never came: {events[id_]}" for id_ in events.keys() - set(kept)]
    last: dict[str | None, int] = {}
    for id_ in kept:
        seq, hash_ = events[id_]
        if hash_ is not None and seq < last.get(hash_, 0):
            found.append(f"{hash_[:8]}: {seq} after {last[hash_]}")
        last[hash_] = seq
    return found


class Writer(threading.Thread):
    """Long transactions: an early number, some decisions in the order of their rows, a late end.

    `turns` of them, or as many as there are until `until` is set; each pauses twice, `pause_s` at
    the longest.
    """

    def __init__(
        self,
        database: Database,
        hashes: list[str],
        seed: int,
        *,
        turns: int = 25,
        pause_s: float = 0.02,
        until: threading.Event | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._hashes = sorted(hashes)
        self._rng = random.Random(seed)
        self._turns = range(turns) if until is None else iter(until.is_set, True)
        self._pause_s = pause_s
        self._pause = threading.Event()
        self.committed: list[str] = []

    def run(self) -> None:
        for turn, _ in enumerate(self._turns):
            name = f"{self.name} {turn}"
            chosen = sorted(self._rng.sample(self._hashes, self._rng.randint(1, 2)))
            with self._database.transaction() as tx:
                write(tx, None, f"{name} begins")
                self._pause.wait(self._rng.uniform(0, self._pause_s))
                for hash_ in chosen:
                    lock(tx, hash_)
                    write(tx, hash_, f"{name} {hash_}")
                self._pause.wait(self._rng.uniform(0, self._pause_s))
            self.committed += [f"{name} begins", *(f"{name} {hash_}" for hash_ in chosen)]

"""Entries: the broker's activities that are no fills (fees, dividends, transfers, splits).

    newest booked − overlap ─▶ GET activities, pages by token ─▶ Tx: entries, positions, events

They are few, and nothing but positions and cash hangs on them, so they are asked for when
something does not tie out (services/tie_out), and before the opening is booked. Many carry only a
day, and come days later: hence the overlap. One that is booked already changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.events import Event, EventKind
from torghut.domain.values import canonical_amount
from torghut.ports import AccountEntry, Broker, Page
from torghut.services.questions import Questions
from torghut.services.recording import guarded, note_taken, note_unreadable
from torghut.storage import account_entries, control
from torghut.storage.account_entries import Entry
from torghut.storage.database import Database
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease

ACTOR = "tie_out"
OVERLAP_DAYS = 7
BUDGET_WAIT_S = 30.0
FEES = frozenset({"CFEE", "FEE"})

T = TypeVar("T")


class EntryLedger:
    """Books the entries of one account."""

    def __init__(
        self, account: str, database: Database, questions: Questions, clock: Clock
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._clock = clock

    def run(self, lease: Lease) -> int:
        """Book what is new; how many. Raises BrokerUnavailable, BrokerRefused."""
        with self._database.transaction() as tx:
            newest = account_entries.newest(tx, self._account)
        after = None if newest is None else newest - timedelta(days=OVERLAP_DAYS)
        booked = 0
        token: str | None = None
        tokens = {token}
        while True:
            page = self._questions.ask(partial(_page, token, after), budget_wait_s=BUDGET_WAIT_S)
            if page or page.unreadable:
                booked += self._book(lease, page)
            if not page.full or page.last_id is None or page.last_id in tokens:
                return booked
            token = page.last_id
            tokens.add(token)

    def _book(self, lease: Lease, page: Page[AccountEntry]) -> int:
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            keys = [entry.activity_id for entry in page]
            fresh = account_entries.unknown(tx, self._account, keys)
            if fresh:
                fence(tx, lease)
            booked: list[str] = []
            for one in page:
                key = one.activity_id
                write = partial(record_entry, tx, self._account, _entry(one), now=now)
                if key in fresh and guarded(
                    tx, self._account, key, write, actor=ACTOR, what="entry", now=now
                ):
                    booked.append(key)
            taken = [*booked, *(key for key in keys if key not in fresh)]
            note_taken(tx, self._account, taken, actor=ACTOR, now=now)
            note_unreadable(tx, self._account, page, what="entry", actor=ACTOR, now=now)
        return len(booked)


def record_entry(tx: Connection, account: str, entry: Entry, *, now: datetime) -> None:
    """Book one entry with its event; nothing if it is booked already."""
    if not account_entries.append(tx, account, entry, now=now):
        return
    payload = {
        "entry_key": entry.key,
        "kind": entry.kind,
        "symbol": entry.symbol,
        "qty": canonical_amount(entry.qty),
        "cash": canonical_amount(entry.cash),
        "reason": entry.reason,
    }
    event = Event(EventKind.ENTRY_RECORDED, entry.actor, account=account, payload=payload)
    control.add_events(tx, [event], now=now)


def _entry(one: AccountEntry) -> Entry:
    return Entry(
        key=one.activity_id,
        kind=one.activity_type,
        occurred_at=one.occurred_at,
        actor=ACTOR,
        reason=str(one.raw.get("description") or "listed by the broker"),
        symbol=one.symbol,
        qty=one.qty,
        px=None if one.activity_type in FEES else one.px,  # a fee is lost, not sold
        cash=one.cash,
        raw=one.raw,
    )


def _page(token: str | None, after: datetime | None, broker: Broker) -> Page[AccountEntry]:
    return broker.entries(page_token=token, after=after)

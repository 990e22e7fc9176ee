"""Tie-out: positions and cash of our books against the broker's, in each reconciler pass (P12).

```
account step ─▶ begin: the broker's answer that this pass compares
orders, open, fills: the books learn what that answer knew, and more
tie-out step ─▶ differences? ─▶ read entries, look again ─▶ a second look, at a later answer
                                                              │ still there
                                                              ▼
           discrepancy position_differs SYMBOL | cash_differs cash ─ beyond tolerance ─▶ reducing
```

1. The answer is from before the orders and fills of the pass were read, so what it knows is in the
   books, or known to be missing there; what the books know beyond it, they learned `LAG_S` before
   it or later. How that is compared: torghut.domain.tie_out.
2. The first comparison books the opening: what the broker has beyond the fills that it lists, as
   positions at its entry prices, and as cash. It waits for an answer without fills about its time;
   while an order of ours may be filled, for two that are `LAG_S` apart and need the same opening: a
   fill that the positions know before the lists do would be booked twice, there and as a fill. The
   metric `torghut_tie_out_begun` is 0 until then. So it waits for a fill that cannot be booked yet.
3. A discrepancy ends by itself when the amounts are equal again, or when a person accepts the
   broker's amount, which books an entry.
4. The account is held back once, when a difference passes the tolerance: who resumes it all the
   same is not overruled, but verdicts deny new exposure as long as the difference stands.
5. When nothing differs nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.discrepancies import DRIFTS, DiscrepancyKind
from torghut.domain.errors import TorghutError
from torghut.domain.exposure import TradingState
from torghut.domain.tie_out import (
    CASH,
    CASH_STEP,
    QTY_STEP,
    Booked,
    Look,
    Standing,
    beyond,
    differences,
    follow,
    one_name,
    symbol_key,
)
from torghut.domain.values import canonical_amount
from torghut.services import trips
from torghut.services.broker_lists import OVERLAP_S
from torghut.services.entry_ledger import ACTOR, EntryLedger, record_entry
from torghut.services.questions import Questions
from torghut.storage import account_entries, control, discrepancies, facts, tie_out
from torghut.storage.account_entries import ADJUSTMENT, OPENING, Entry
from torghut.storage.database import Database
from torghut.storage.discrepancies import Key, OpenDiscrepancy
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import AccountSnapshot, Lease

LAG_S = 5.0
EQUAL_AGAIN = "the amounts are equal again"

_ZERO = Decimal(0)

log = structlog.get_logger(__name__)


class NothingToAccept(TorghutError):
    """No difference of this subject stands open."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One amount on both sides."""

    booked: Booked
    broker: Decimal
    step: Decimal

    @property
    def differences(self) -> frozenset[Decimal]:
        return differences(self.booked, self.broker, step=self.step)

    @property
    def unexplained(self) -> bool:
        """Only what is no fill can explain it; a fee that is awaited may be listed by now."""
        strict = replace(self.booked, fee_awaited=_ZERO)
        found = differences(strict, self.broker, step=self.step)
        return bool(found) and _ZERO not in found


class TieOut:
    """Compares one account; used by one reconciler pass at a time."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        tolerance: Mapping[DiscrepancyKind, Decimal],
        *,
        clock: Clock,
    ) -> None:
        self._account = account
        self._database = database
        self._tolerance = tolerance
        self._clock = clock
        self._entries = EntryLedger(account, database, questions, clock)
        self._answer: AccountSnapshot | None = None
        self._opening: tuple[datetime, Mapping[Key, Decimal]] | None = None

    def begin(self) -> None:
        """Take the newest answer, before the pass reads orders and fills."""
        with self._database.transaction() as tx:
            self._answer = facts.account_snapshot(tx, self._account)

    def run(self, lease: Lease) -> dict[str, int]:
        """Compare with the answer of `begin`; returns counts. Raises BrokerUnavailable, Refused."""
        answer, self._answer = self._answer, None
        if answer is None or answer.cash is None:
            return {}
        with self._database.transaction() as tx:
            ready = account_entries.opened(tx, self._account)
            seen = self._compare(tx, answer)
            listed_by = self._clock() - timedelta(seconds=OVERLAP_S)
            trading = not ready and tie_out.trading(tx, self._account, since=listed_by)
        telemetry.TIED_OUT.labels(self._account).set(ready)
        if not ready:
            moving = sorted(subject for (_, subject), one in seen.items() if not one.booked.settled)
            if moving:
                log.warning("nothing is compared yet: fills go on without a pause", moving=moving)
                return {}
            return {} if trading and not self._lasts(answer, seen) else self._open(lease, answer)
        unclear = any(one.unexplained for one in seen.values())
        entries = self._entries.run(lease) if unclear else 0
        return {"entries": entries, **self._judge(lease, answer)}

    def _compare(self, tx: Connection, answer: AccountSnapshot) -> dict[Key, _Seen]:
        """What the broker's amounts less ours may be, by kind and subject."""
        since = answer.observed_at - timedelta(seconds=LAG_S)
        books = tie_out.books(tx, self._account, since=since, now=self._clock())
        cash = books.pop(CASH)
        found = {(DiscrepancyKind.CASH_DIFFERS, CASH): _Seen(cash, answer.cash or _ZERO, CASH_STEP)}
        names = one_name({*books, *answer.positions})
        ours = {symbol_key(symbol): booked for symbol, booked in books.items()}
        theirs = {symbol_key(symbol): qty for symbol, qty in answer.positions.items()}
        for key, symbol in names.items():
            seen = _Seen(ours.get(key, Booked()), theirs.get(key, _ZERO), QTY_STEP)
            found[DiscrepancyKind.POSITION_DIFFERS, symbol] = seen
        return found

    # ------------------------------------------------------------------ opening

    def _lasts(self, answer: AccountSnapshot, seen: Mapping[Key, _Seen]) -> bool:
        """Whether an answer of LAG_S before needed the same opening."""
        amounts = {key: one.broker - one.booked.now for key, one in seen.items()}
        amounts = {key: amount for key, amount in amounts.items() if amount}
        if self._opening is None or self._opening[1] != amounts:
            self._opening = (answer.observed_at, amounts)
        return answer.observed_at - self._opening[0] >= timedelta(seconds=LAG_S)

    def _open(self, lease: Lease, answer: AccountSnapshot) -> dict[str, int]:
        """Book what stood at the broker before the first comparison."""
        self._entries.run(lease)
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            seen = self._compare(tx, answer)
            moving = any(one.booked.moves or one.booked.waiting for one in seen.values())
            if moving or account_entries.opened(tx, self._account):
                return {}
            if fills := discrepancies.unbooked_fills(tx, self._account):
                # it is in the broker's positions: once its order shows, it would be in ours twice
                log.warning("nothing is compared yet: fills without their orders", fills=fills)
                return {}
            fence(tx, lease)
            for (kind, subject), one in seen.items():
                qty = one.broker - one.booked.now
                if kind is DiscrepancyKind.POSITION_DIFFERS and qty:
                    self._book_opening(tx, answer, subject, qty, now)
            # after the positions: their worth is no cash
            cash = (answer.cash or _ZERO) - account_entries.cash(tx, self._account)
            self._book_opening(tx, answer, None, cash, now)
        return {"opening": 1}

    def _book_opening(
        self,
        tx: Connection,
        answer: AccountSnapshot,
        symbol: str | None,
        amount: Decimal,
        now: datetime,
    ) -> None:
        entry = Entry(
            key=f"opening:{symbol or CASH}",
            kind=OPENING,
            occurred_at=answer.observed_at,
            actor=ACTOR,
            reason="stood at the broker before the first comparison",
            symbol=symbol,
            qty=amount if symbol else _ZERO,
            px=_worth(answer, symbol) if symbol else None,
            cash=_ZERO if symbol else amount,
        )
        record_entry(tx, self._account, entry, now=now)

    # ------------------------------------------------------------------ judge

    def _judge(self, lease: Lease, answer: AccountSnapshot) -> dict[str, int]:
        now = self._clock()
        opened = closed = 0
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            seen = self._compare(tx, answer)
            looks = tie_out.looks(tx, self._account)
            drifts = discrepancies.standing(tx, self._account, DRIFTS)
            for kind, subject in [*looks, *drifts]:  # what is flat on both sides by now
                seen.setdefault((DiscrepancyKind(kind), subject), _Seen(Booked(), _ZERO, QTY_STEP))
            fenced = False
            for key, one in seen.items():
                found = one.differences
                before, looked_at = looks.get(key, (None, None))
                drift = drifts.get(key)
                if not found or (looked_at is not None and looked_at >= answer.observed_at):
                    continue
                if before is None and drift is None and _ZERO in found:
                    continue
                if not fenced:
                    fence(tx, lease)
                    fenced = True
                look = follow(before, found)
                if look.standing is Standing.EQUAL:
                    tie_out.forget_look(tx, self._account, *key)
                    closed += self._close(tx, key, drifts, now)
                    continue
                tie_out.store_look(tx, self._account, *key, look, observed_at=answer.observed_at)
                if look.standing is Standing.DIFFERS:
                    opened += self._differs(tx, key, one.booked, look, drift, now)
            telemetry.DRIFTS.labels(self._account).set(
                len(discrepancies.standing(tx, self._account, DRIFTS))
            )
        return {"drifts_opened": opened, "drifts_closed": closed}

    def _differs(
        self,
        tx: Connection,
        key: Key,
        booked: Booked,
        look: Look,
        drift: OpenDiscrepancy | None,
        now: datetime,
    ) -> int:
        """Make the difference visible, or bring it up to date; hold back what is beyond."""
        kind, subject = key
        too_much = beyond(look.difference, self._tolerance[kind])
        evidence: Mapping[str, object] = {
            "ours": canonical_amount(booked.now),
            "brokers": canonical_amount(booked.now + look.difference),
            "difference": canonical_amount(look.difference),
            "tolerance": canonical_amount(self._tolerance[kind]),
            "beyond_tolerance": too_much,
        }
        new = drift is None
        if drift is None:
            discrepancies.open_(tx, self._account, kind, subject, evidence, actor=ACTOR, now=now)
            log.error("books and broker differ", kind=kind.value, subject=subject, **evidence)
        else:
            discrepancies.renew(tx, drift, evidence, now=now)
        if too_much and (drift is None or not drift.evidence.get("beyond_tolerance")):
            reason = (
                f"{kind.value} {subject}: ours {evidence['ours']}, the broker's"
                f" {evidence['brokers']}"
            )
            scope = control.account_scope(self._account)
            trips.trip(tx, scope, TradingState.REDUCING, reason, now=now, actor=ACTOR)
        return int(new)

    def _close(
        self, tx: Connection, key: Key, drifts: Mapping[Key, OpenDiscrepancy], now: datetime
    ) -> int:
        if key not in drifts:
            return 0
        kind, subject = key
        return discrepancies.end(
            tx, self._account, [kind], [subject], resolution=EQUAL_AGAIN, actor=ACTOR, now=now
        )


def accept(
    database: Database, account: str, subject: str, *, actor: str, reason: str, now: datetime
) -> Mapping[str, object]:
    """Take the broker's amount of a symbol or of "cash" into our books, because a person says so.

    Returns what was booked. Raises NothingToAccept.
    """
    with database.transaction() as tx:
        lock_books(tx, account)
        found = discrepancies.standing(tx, account, DRIFTS).values()
        drift = next((one for one in found if _same(one.subject, subject)), None)
        if drift is None:
            raise NothingToAccept(
                f"no difference of {subject} stands open on account {account};"
                " list what does: torghut discrepancies"
            )
        amount = Decimal(str(drift.evidence["difference"]))
        answer = facts.account_snapshot(tx, account)
        position = drift.kind == DiscrepancyKind.POSITION_DIFFERS
        entry = Entry(
            key=f"accepted:{drift.discrepancy_id}",
            kind=ADJUSTMENT,
            occurred_at=now,
            actor=actor,
            reason=reason,
            symbol=drift.subject if position else None,
            qty=amount if position else _ZERO,
            px=_worth(answer, drift.subject) if position and answer else None,
            cash=_ZERO if position else amount,
            raw=drift.evidence,
        )
        record_entry(tx, account, entry, now=now)
        tie_out.forget_look(tx, account, drift.kind, drift.subject)
        resolution = f"accepted by {actor}: {reason}"
        discrepancies.end(
            tx, account, [drift.kind], [drift.subject], resolution=resolution, actor=actor, now=now
        )
    return {
        "account": account,
        "kind": drift.kind,
        "subject": drift.subject,
        "difference": canonical_amount(amount),
    }


def _same(subject: str, asked: str) -> bool:
    return symbol_key(subject).upper() == symbol_key(asked).upper()


def _worth(answer: AccountSnapshot, symbol: str) -> Decimal | None:
    """What a unit of a position cost by the broker's answer, else what it is worth now."""
    for prices in (answer.entry_pxs, answer.marks):
        for name, px in prices.items():
            if _same(name, symbol) and px >= 0:
                return px
    return None

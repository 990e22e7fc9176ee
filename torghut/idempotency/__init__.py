"""Idempotency for any application on Postgres: one key, one result, stored once and replayed.

```
exactly_once(key, fn) ─┐                       created   this attempt is yours: run, then finish
Idempotency-Key (HTTP) ┴▶ Store.claim(…) ────▶ exists    answered before, or being answered
                          one statement        conflict  the key was used with another payload

  (no row) ──claim──▶ in_progress ──finish──▶ completed | failed ──expiry──▶ (no row)
                       │    ▲   └─ lease over, its owner is dead: outcome unknown ─┐
               release │    │ claim                                                │
                       ▼    │                                                      │
                      pending ◀────────────── claim with a resolver ◀──────────────┘
```

1. The database decides, by its own clock: who runs, until when, what has expired.
2. Whoever runs has a fencing token that grows with each attempt; a result is stored only under the
   current one, so that a late finisher changes nothing.
3. A stored result is never overwritten before it expires; a trigger holds that too.
4. An unknown outcome is no failure: it is answered as such until a resolver says what happened.

It imports nothing else of torghut, and makes its own table in whatever database it is given
(`create_schema`). The ASGI middleware is in torghut.idempotency.asgi; docs/idempotency.md has
the guarantee, and what it is not.
"""

from torghut.idempotency.errors import (
    IdempotencyError,
    InProgress,
    KeyReused,
    LostOwnership,
    OutcomeUnknown,
    StoredFailure,
)
from torghut.idempotency.keys import order_key, payload_digest, risk_check_key, signal_key
from torghut.idempotency.once import (
    RUN_AGAIN,
    STILL_UNKNOWN,
    Attempt,
    Happened,
    Outcome,
    exactly_once,
    exactly_once_async,
)
from torghut.idempotency.schema import create_schema
from torghut.idempotency.store import Answer, Claim, Found, Record, State, Statistics, Store

__all__ = [
    "RUN_AGAIN",
    "STILL_UNKNOWN",
    "Answer",
    "Attempt",
    "Claim",
    "Found",
    "Happened",
    "IdempotencyError",
    "InProgress",
    "KeyReused",
    "LostOwnership",
    "Outcome",
    "OutcomeUnknown",
    "Record",
    "State",
    "Statistics",
    "Store",
    "StoredFailure",
    "create_schema",
    "exactly_once",
    "exactly_once_async",
    "order_key",
    "payload_digest",
    "risk_check_key",
    "signal_key",
]

"""Expired idempotency keys are deleted by the daemon that owns the account."""

from __future__ import annotations

from prometheus_client import REGISTRY
from sqlalchemy import text

from tests.services.live import running
from tests.services.rig import Rig, eventually
from torghut.web.keyed import key_store


def count(state: str) -> float | None:
    return REGISTRY.get_sample_value("torghut_idempotency_keys", {"state": state})


def test_it_runs_in_the_daemon(rig: Rig) -> None:
    """Wired: what has expired is gone, what has not stays, and the metric says how many."""
    store = key_store(rig.database)
    for key in ("old", "kept"):
        claim = store.claim(key, "a" * 64).claim
        assert claim is not None
        store.finish(claim, {"kind": "value"})
    with rig.database.transaction() as tx:
        tx.execute(text("UPDATE idempotency_keys SET expires_at = now() WHERE key = 'old'"))
    with running(rig):
        eventually(lambda: rig.sql("SELECT key FROM idempotency_keys") == [("kept",)])
        eventually(lambda: (count("completed"), count("expired")) == (1, 0))

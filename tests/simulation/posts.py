"""May this POST leave? Judged from outside at the instant at which the protocol lets it go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from tests.simulation.driver import Session
from tests.simulation.line import Post
from torghut.domain.orders import OrderRequest

if TYPE_CHECKING:
    from tests.simulation.world import World

_KNOWN = text("""
SELECT d.expires_at, l.owner, l.expires_at > CAST(:now AS timestamptz) AS valid,
  (SELECT count(*) FROM submission_attempts a
   WHERE a.decision_id = d.decision_id AND a.operation = 'submit') AS intents,
  (SELECT count(*) FROM submission_attempts a WHERE a.decision_id = d.decision_id
   AND a.operation = 'submit' AND a.outcome IS NULL) AS open_intents,
  (SELECT count(*) FROM risk_verdicts v
   WHERE v.decision_id = d.decision_id AND v.outcome = 'approved') AS approvals,
  mine.attempts AS attempt_no, mine.stamp AS intended
FROM trade_decisions d LEFT JOIN account_leases l ON l.account = d.account
LEFT JOIN LATERAL (SELECT h.attempts, h.stamp FROM virtual.history h
  WHERE h.account = d.account AND h.subject = d.decision_hash AND h.kind = 'attempt'
    AND h.after = 'submit' AND h.process = :process ORDER BY h.seq DESC LIMIT 1) mine ON true
WHERE d.decision_hash = :hash""")


def check_post(world: World, session: Session, post: Post, order: OrderRequest) -> None:
    """Note every reason for which this POST must not leave."""
    decision = next(
        (d for d in world.plan.decisions if d.decision_hash == post.client_order_id), None
    )
    if world.transaction_of is not None:
        world.violated("P3", "a POST with a transaction open")
        return
    if decision is None or decision.order != order:
        world.violated("P1", "a POST of an order that is no decision's, or under another id")
        return
    name = world.name(post.client_order_id)
    known = session.execute(
        _KNOWN,
        {"hash": post.client_order_id, "process": post.process, "now": world.postgres_now()},
    ).one_or_none()
    sent = 1 + sum(one.client_order_id == post.client_order_id for one in world.seen.posts)
    if known is None or known.intents < sent or not known.open_intents or known.intended is None:
        world.violated("P3", f"POST {sent} of {name} without an intent of its own")
        return
    if known.approvals < known.intents:
        world.violated("P7", f"{name} was sent {known.intents} times, approved {known.approvals}")
    asked = any(
        absent.client_order_id == post.client_order_id and absent.stamp > known.intended
        for absent in world.seen.absents
    )
    if known.attempt_no > 1 and not asked:
        world.violated("P1", f"attempt {known.attempt_no} of {name} is sent without asking first")
    if world.plan.skewed:
        return  # by whose clock?
    if known.expires_at <= world.utc():
        world.violated("P4", f"{name} is sent after its time")
    if known.owner != post.process or not known.valid:
        world.violated("P5", f"{name} is sent by {post.process}, which does not own the account")

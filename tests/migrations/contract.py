"""What each released schema was written to with: statements that must go on working for good.

`WRITES[revision]` are those that came with a revision, in the words of its time: never changed
afterwards, because a daemon of that version says them still while the next one starts. Each may be
run many times, with another `n`.
"""

from __future__ import annotations

from collections.abc import Mapping

_DECISION = "(SELECT decision_id FROM trade_decisions WHERE decision_hash = %(hash)s)"
_EXECUTION = "(SELECT execution_id FROM executions WHERE client_order_id = %(hash)s)"
_ADVANCE = "UPDATE trade_decisions SET updated_at = now(), status_reason = 'r', fencing_token = 1"
_SAME = "WHERE decision_hash = %(hash)s"

WRITES: Mapping[str, tuple[str, ...]] = {
    "0001": (
        """INSERT INTO trade_decisions (decision_hash, hash_version, payload_digest, account,
          strategy, symbol, side, event_ts, intent, payload, correlation_id, source, due_at,
          expires_at, created_at, updated_at)
        VALUES (%(hash)s, 1, %(hash)s, 'paper', 's', 'AAPL', 'buy', now(), '',
          '{"type": "market", "qty": "1", "time_in_force": "day"}', NULL, 'http', now(),
          now() + interval '1 day', now(), now())""",
        f"""INSERT INTO risk_verdicts (decision_id, outcome, deny_reason, policy_version, checks,
          facts, reference_px, notional, judged_at)
        VALUES ({_DECISION}, 'approved', NULL, 'v', '[]', '{{}}', 1, 1, now())""",
        f"{_ADVANCE}, status = 'approved' {_SAME} AND status = 'planned'",
        f"{_ADVANCE}, status = 'submitting', attempts = 1 {_SAME} AND status = 'approved'",
        f"""INSERT INTO submission_attempts (decision_id, operation, attempt_no, client_order_id,
          fencing_token, order_sent, intended_at)
        VALUES ({_DECISION}, 'submit', 1, %(hash)s, 1, '{{}}', now())""",
        f"""UPDATE submission_attempts SET outcome = 'accepted', http_status = 200,
          answered_at = now() WHERE decision_id = {_DECISION} AND outcome IS NULL""",
        f"""INSERT INTO executions (decision_id, account, client_order_id, broker_order_id, origin,
          symbol, side, order_type, time_in_force, qty, status, terminal, cum_qty, leaves_qty,
          broker_created_at, created_at, updated_at)
        VALUES ({_DECISION}, 'paper', %(hash)s, 'b' || %(n)s::text, 'submitted', 'AAPL', 'buy',
          'market', 'day', 1, 'new', false, 0, 1, now(), now(), now())""",
        f"""INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty,
          observed_at, raw)
        VALUES ({_EXECUTION}, 'k' || %(n)s::text, 'rest', 'filled', 1, now(), '{{}}')""",
        """UPDATE executions SET status = 'filled', terminal = true, cum_qty = 1, leaves_qty = 0,
          avg_px = 1, ledger_qty = 1, updated_at = now() WHERE client_order_id = %(hash)s""",
        f"""INSERT INTO fills (activity_id, execution_id, decision_id, account, strategy, symbol,
          side, last_qty, last_px, cum_qty, leaves_qty, transact_time, recorded_at, raw)
        VALUES ('a' || %(n)s::text, {_EXECUTION}, {_DECISION}, 'paper', 's', 'AAPL', 'buy', 1, 1,
          1, 0, now(), now(), '{{}}')""",
        """INSERT INTO positions AS p (account, symbol, qty, cost_basis, avg_px, realized_pl,
          updated_at) VALUES ('paper', 'AAPL', 1, 1, 1, 0, now())
        ON CONFLICT (account, symbol) DO UPDATE SET qty = p.qty + 1""",
        f"{_ADVANCE}, status = 'submitted' {_SAME} AND status = 'submitting'",
        f"{_ADVANCE}, status = 'closed', finalized_at = now() {_SAME} AND status = 'submitted'",
        """INSERT INTO events (kind, account, decision_hash, actor, payload, created_at)
        VALUES ('decision.closed', 'paper', %(hash)s, 'executor', '{}', now())""",
        """INSERT INTO discrepancies (account, kind, subject, evidence, opened_at, seen_at)
        VALUES ('paper', 'order_differs', %(hash)s, '{}', now(), now())""",
        """INSERT INTO trading_states (scope, state, actor, reason, changed_at)
        VALUES ('account:paper', 'active', 'x', 'y', now())
        ON CONFLICT (scope) DO UPDATE SET state = 'halted', changed_at = now()""",
        """INSERT INTO account_leases AS l (account, owner, fencing_token, acquired_at, renewed_at,
          expires_at) VALUES ('paper', 'o', 1, now(), now(), now())
        ON CONFLICT (account) DO UPDATE SET fencing_token = l.fencing_token + 1""",
        """INSERT INTO broker_accounts (account, account_number, status, currency, cash, equity,
          buying_power, blocked, positions, raw, observed_at)
        VALUES ('paper', 'PA1', 'ACTIVE', 'USD', 1, 1, 1, false, '{}', '{}', now())
        ON CONFLICT (account) DO UPDATE SET cash = 2""",
        """INSERT INTO broker_cursors (account, name, position, updated_at)
        VALUES ('paper', 'orders', '2026', now())
        ON CONFLICT (account, name) DO UPDATE SET updated_at = now()""",
    ),
    "0002_control": (
        """INSERT INTO trading_states (scope, state, actor, reason, changed_at)
        VALUES ('strategy:' || %(n)s::text, 'halted', 'x', 'y', now())""",
        """INSERT INTO broker_cursors (account, name, position, updated_at)
        VALUES ('paper', 'guard', '2026', now())
        ON CONFLICT (account, name) DO UPDATE SET updated_at = now()""",
        "INSERT INTO limit_reloads (actor, requested_at) VALUES ('cli', now())",
    ),
    "0003_orders": (
        f"""INSERT INTO order_actions (account, operation, decision_id, target, request_key,
          request, requested_by, reason, due_at, created_at, updated_at)
        VALUES ('paper', 'cancel', {_DECISION}, %(hash)s, %(n)s::text, '{{}}', 'cli', 'r', now(),
          now(), now())""",
        """UPDATE order_actions SET status = 'moot', status_reason = 'r', finalized_at = now()
        WHERE target = %(hash)s""",
        f"""INSERT INTO risk_verdicts (decision_id, action_id, outcome, policy_version, checks,
          facts, judged_at)
        SELECT {_DECISION}, action_id, 'approved', 'v', '[]', '{{}}', now() FROM order_actions
        WHERE target = %(hash)s""",
    ),
    "0004_risk": (
        """INSERT INTO risk_policies (policy_version, policy, first_used_at)
        VALUES ('v' || %(n)s::text, '{}', now())""",
        """INSERT INTO order_counts AS c (account, strategy, day, orders)
        VALUES ('paper', 's', current_date, 1)
        ON CONFLICT (account, day, strategy) DO UPDATE SET orders = c.orders + 1""",
    ),
    "0005_tie_out": (
        """INSERT INTO account_entries (account, entry_key, kind, symbol, qty, px, cash,
          occurred_at, recorded_at, actor, reason, raw)
        VALUES ('paper', %(n)s::text, 'CFEE', 'BTC/USD', -1, NULL, 0, now(), now(), 'x', 'y',
          '{}')""",
    ),
    "0007_idempotency": (
        """INSERT INTO idempotency_keys (scope, key, digest, state, in_doubt, atomic, attempts,
          token, owner, leased_until, created_at, updated_at, expires_at)
        VALUES ('s', %(n)s::text, %(hash)s, 'in_progress', false, false, 1, 1, 'o', now(), now(),
          now(), now())""",
    ),
    "0008_outbox": (
        """INSERT INTO outbox_cursors (sink, cluster, base)
        VALUES ('sink ' || %(n)s::text, 1, '1:1:')""",
        "INSERT INTO decision_inbox (account, body) VALUES ('paper', '{}')",
    ),
}

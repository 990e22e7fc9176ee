-- Schema 0001. The database refuses what the code forbids: legal statuses and steps, fencing,
-- identity that never changes, facts that are only appended. Amounts are numeric(28,9).

-- ---------------------------------------------------------------- guards

CREATE FUNCTION torghut_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'table % is append-only: % is refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Facts are never changed; record a new one.';
END $$;
COMMENT ON FUNCTION torghut_append_only() IS 'Refuses UPDATE, DELETE and TRUNCATE on fact tables (P6).';

CREATE FUNCTION torghut_no_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are kept: % is refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Identity needs the row: without it the same decision could be sent twice.';
END $$;
COMMENT ON FUNCTION torghut_no_delete() IS 'Refuses DELETE and TRUNCATE where identity depends on the rows.';

-- ---------------------------------------------------------------- decisions

CREATE TABLE trade_decisions (
  decision_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decision_hash  text NOT NULL UNIQUE CHECK (decision_hash ~ '^[0-9a-f]{64}$'),
  hash_version   smallint NOT NULL,
  payload_digest text NOT NULL CHECK (payload_digest ~ '^[0-9a-f]{64}$'),
  account        text NOT NULL,
  strategy       text NOT NULL,
  symbol         text NOT NULL,
  side           text NOT NULL CHECK (side IN ('buy', 'sell')),
  event_ts       timestamptz NOT NULL,
  intent         text NOT NULL,
  payload        jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
  order_type     text NOT NULL GENERATED ALWAYS AS (payload ->> 'type') STORED,
  qty            numeric(28,9) GENERATED ALWAYS AS ((payload ->> 'qty')::numeric) STORED,
  notional       numeric(28,9) GENERATED ALWAYS AS ((payload ->> 'notional')::numeric) STORED,
  limit_price    numeric(28,9) GENERATED ALWAYS AS ((payload ->> 'limit_price')::numeric) STORED,
  correlation_id text,
  source         text NOT NULL,
  status         text NOT NULL DEFAULT 'planned' CHECK (status IN (
                   'planned', 'approved', 'submitting', 'in_doubt', 'submitted',
                   'closed', 'denied', 'rejected', 'expired', 'canceled')),
  status_reason  text,
  status_detail  text,
  attempts       integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  fencing_token  bigint NOT NULL DEFAULT 0,
  due_at         timestamptz NOT NULL,
  in_doubt_since timestamptz,
  lookups        integer NOT NULL DEFAULT 0,
  lookup_misses  integer NOT NULL DEFAULT 0,
  expires_at     timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  finalized_at   timestamptz,
  CHECK ((qty IS NULL) <> (notional IS NULL)),
  -- NaN sorts above every number: the upper bound keeps it out
  CHECK (qty > 0 AND qty < 'Infinity'),
  CHECK (notional > 0 AND notional < 'Infinity'),
  CHECK (limit_price > 0 AND limit_price < 'Infinity'),
  CHECK ((status = 'in_doubt') = (in_doubt_since IS NOT NULL)),
  CHECK (status NOT IN ('submitting', 'in_doubt', 'submitted') OR (attempts > 0 AND fencing_token > 0)),
  CHECK ((status IN ('closed', 'denied', 'rejected', 'expired', 'canceled')) = (finalized_at IS NOT NULL)),
  CHECK (finalized_at IS NULL OR status_reason IS NOT NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

COMMENT ON TABLE trade_decisions IS 'One row per trading decision; decision_hash is its identity and the client_order_id of its order (P1). Rows are never deleted.';
COMMENT ON COLUMN trade_decisions.payload IS 'Canonical form of all that shapes the order; payload_digest is its SHA-256.';
COMMENT ON COLUMN trade_decisions.status IS 'Life cycle (docs/architecture.md); the broker''s order status is in executions.';
COMMENT ON COLUMN trade_decisions.status_reason IS 'Closed set: why the row is in this status.';
COMMENT ON COLUMN trade_decisions.due_at IS 'When the next step may be taken; backoff moves it.';
COMMENT ON COLUMN trade_decisions.fencing_token IS 'Lease token of the last writer; never decreases.';
COMMENT ON COLUMN trade_decisions.lookups IS 'Questions to the broker since in_doubt_since, answered or not; sets the backoff.';
COMMENT ON COLUMN trade_decisions.lookup_misses IS 'Definite "no such order" answers since in_doubt_since.';
COMMENT ON COLUMN trade_decisions.expires_at IS 'After this a decision that has not reached the broker must not trade.';

CREATE INDEX trade_decisions_due ON trade_decisions (account, due_at, decision_id)
  WHERE status IN ('planned', 'approved', 'submitting', 'in_doubt');
CREATE INDEX trade_decisions_live ON trade_decisions (account, status, symbol)
  WHERE status IN ('submitting', 'in_doubt', 'submitted');
CREATE INDEX trade_decisions_strategy ON trade_decisions (strategy, decision_id);
CREATE INDEX trade_decisions_symbol ON trade_decisions (symbol, decision_id);
CREATE INDEX trade_decisions_created ON trade_decisions USING brin (created_at);

CREATE FUNCTION torghut_decision_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.status <> 'planned' THEN
      RAISE EXCEPTION 'a decision begins as planned, not as %', NEW.status
        USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF (NEW.decision_hash, NEW.hash_version, NEW.payload_digest, NEW.account, NEW.strategy,
      NEW.symbol, NEW.side, NEW.event_ts, NEW.intent, NEW.payload, NEW.created_at)
     IS DISTINCT FROM
     (OLD.decision_hash, OLD.hash_version, OLD.payload_digest, OLD.account, OLD.strategy,
      OLD.symbol, OLD.side, OLD.event_ts, OLD.intent, OLD.payload, OLD.created_at) THEN
    RAISE EXCEPTION 'identity and payload of decision % never change', OLD.decision_hash
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'planned>approved', 'planned>denied', 'planned>expired',
      'approved>submitting', 'approved>expired', 'approved>canceled',
      'submitting>submitted', 'submitting>rejected', 'submitting>in_doubt', 'submitting>approved',
      'in_doubt>submitted', 'in_doubt>rejected', 'in_doubt>approved', 'in_doubt>expired',
      'submitted>closed'])) THEN
    RAISE EXCEPTION 'decision %: the step % to % is not in the life cycle',
      OLD.decision_hash, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fencing_token < OLD.fencing_token THEN
    RAISE EXCEPTION 'decision %: fencing token % is older than %',
      OLD.decision_hash, NEW.fencing_token, OLD.fencing_token USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.attempts < OLD.attempts THEN
    RAISE EXCEPTION 'decision %: attempts never decrease', OLD.decision_hash
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_decision_guard() IS 'The transition table of torghut/domain/lifecycle.py, immutable identity, and the fence (P5).';

CREATE TRIGGER decision_guard BEFORE INSERT OR UPDATE ON trade_decisions
  FOR EACH ROW EXECUTE FUNCTION torghut_decision_guard();
CREATE TRIGGER decision_kept BEFORE DELETE ON trade_decisions
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();
CREATE TRIGGER decision_kept_all BEFORE TRUNCATE ON trade_decisions
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_no_delete();

-- ---------------------------------------------------------------- verdicts

CREATE TABLE risk_verdicts (
  verdict_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decision_id    bigint NOT NULL REFERENCES trade_decisions,
  outcome        text NOT NULL CHECK (outcome IN ('approved', 'denied')),
  deny_reason    text,
  policy_version text NOT NULL,
  checks         jsonb NOT NULL CHECK (jsonb_typeof(checks) = 'array'),
  facts          jsonb NOT NULL,
  reference_px   numeric(28,9),
  notional       numeric(38,9),
  judged_at      timestamptz NOT NULL,
  CHECK ((outcome = 'denied') = (deny_reason IS NOT NULL))
);
COMMENT ON TABLE risk_verdicts IS 'Every risk verdict, approved or denied, with each check''s measured value and limit and the facts it saw. Append-only; a decision sent again is judged again.';
COMMENT ON COLUMN risk_verdicts.notional IS 'What the order was taken to cost at most, in account currency; reserved while it may be live (P7).';
CREATE INDEX risk_verdicts_decision ON risk_verdicts (decision_id, verdict_id);
CREATE TRIGGER verdict_append_only BEFORE UPDATE OR DELETE ON risk_verdicts
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER verdict_append_only_all BEFORE TRUNCATE ON risk_verdicts
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

-- ---------------------------------------------------------------- attempts

CREATE TABLE submission_attempts (
  attempt_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decision_id     bigint NOT NULL REFERENCES trade_decisions,
  operation       text NOT NULL CHECK (operation IN ('submit', 'lookup')),
  attempt_no      integer NOT NULL CHECK (attempt_no > 0),
  client_order_id text NOT NULL,
  fencing_token   bigint NOT NULL,
  order_sent      jsonb,
  intended_at     timestamptz NOT NULL,
  outcome         text CHECK (outcome IN (
                    'accepted', 'in_doubt', 'exists', 'refused', 'account_refused',
                    'rate_limited', 'never_left', 'not_sent', 'found', 'absent', 'unanswered')),
  http_status     integer,
  broker_code     text,
  message         text,
  body            text,
  request_id      text,
  broker_order_id text,
  answered_at     timestamptz,
  CHECK ((outcome IS NULL) = (answered_at IS NULL)),
  CHECK (operation = 'submit' OR outcome IS NOT NULL)
);
COMMENT ON TABLE submission_attempts IS 'Every question put to the broker about a decision''s order: intent committed before the call (P3), what came back after it. A submit without an outcome is one whose process died: in doubt.';
CREATE UNIQUE INDEX submission_attempts_submit ON submission_attempts (decision_id, attempt_no)
  WHERE operation = 'submit';
CREATE INDEX submission_attempts_intended ON submission_attempts (intended_at)
  WHERE operation = 'submit';
CREATE INDEX submission_attempts_decision ON submission_attempts (decision_id, attempt_id);

CREATE FUNCTION torghut_attempt_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.outcome IS NOT NULL
     OR (NEW.attempt_id, NEW.decision_id, NEW.operation, NEW.attempt_no, NEW.client_order_id,
         NEW.fencing_token, NEW.order_sent, NEW.intended_at)
        IS DISTINCT FROM
        (OLD.attempt_id, OLD.decision_id, OLD.operation, OLD.attempt_no, OLD.client_order_id,
         OLD.fencing_token, OLD.order_sent, OLD.intended_at) THEN
    RAISE EXCEPTION 'attempt %: only the outcome may be written, once', OLD.attempt_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_attempt_guard() IS 'An attempt is written twice: intent, then outcome.';
CREATE TRIGGER attempt_guard BEFORE UPDATE ON submission_attempts
  FOR EACH ROW EXECUTE FUNCTION torghut_attempt_guard();
CREATE TRIGGER attempt_kept BEFORE DELETE ON submission_attempts
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER attempt_kept_all BEFORE TRUNCATE ON submission_attempts
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

-- ---------------------------------------------------------------- executions

CREATE TABLE executions (
  execution_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decision_id       bigint REFERENCES trade_decisions,
  account           text NOT NULL,
  client_order_id   text NOT NULL UNIQUE,
  broker_order_id   text NOT NULL UNIQUE,
  origin            text NOT NULL CHECK (origin IN ('submitted', 'recovered', 'reconciled', 'external')),
  symbol            text NOT NULL,
  side              text NOT NULL,
  order_type        text NOT NULL,
  time_in_force     text NOT NULL,
  qty               numeric(28,9),
  notional          numeric(28,9),
  limit_price       numeric(28,9),
  stop_price        numeric(28,9),
  status            text NOT NULL,
  terminal          boolean NOT NULL,
  cum_qty           numeric(28,9) NOT NULL CHECK (cum_qty >= 0 AND cum_qty < 'Infinity'),
  leaves_qty        numeric(28,9) NOT NULL CHECK (leaves_qty >= 0 AND leaves_qty < 'Infinity'),
  avg_px            numeric(28,9),
  ledger_qty        numeric(28,9) NOT NULL DEFAULT 0 CHECK (ledger_qty >= 0 AND ledger_qty < 'Infinity'),
  replaces          text,
  replaced_by       text,
  broker_created_at timestamptz NOT NULL,
  broker_updated_at timestamptz,
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  CHECK ((origin = 'external') = (decision_id IS NULL)),
  CHECK (NOT terminal OR leaves_qty = 0)
) WITH (fillfactor = 80);
COMMENT ON TABLE executions IS 'One row per broker order, ours or adopted (external); status and quantities are the fold of execution_events.';
COMMENT ON COLUMN executions.status IS 'The broker''s order status as text.';
COMMENT ON COLUMN executions.origin IS 'How the row came: submitted (the answer to our call), recovered (found by lookup), reconciled (found in the broker''s lists), external (not ours).';
COMMENT ON COLUMN executions.leaves_qty IS 'Open for further execution; 0 once terminal. For a notional order 0: its size in shares is not known.';
COMMENT ON COLUMN executions.ledger_qty IS 'Sum of last_qty of its rows in fills; below cum_qty while fill activities are still to come.';
CREATE INDEX executions_unledgered ON executions (account, symbol) WHERE cum_qty > ledger_qty;
CREATE INDEX executions_decision ON executions (decision_id);
CREATE INDEX executions_open ON executions (account, symbol) WHERE NOT terminal;
CREATE INDEX executions_created ON executions (account, created_at);
CREATE INDEX executions_account_symbol ON executions (account, symbol, execution_id);

CREATE FUNCTION torghut_execution_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- once, an order that was adopted may turn out to be a decision's own
  IF OLD.decision_id IS NULL AND NEW.decision_id IS NOT NULL THEN
    OLD.decision_id := NEW.decision_id;
    OLD.origin := NEW.origin;
  END IF;
  IF (NEW.decision_id, NEW.account, NEW.client_order_id, NEW.broker_order_id, NEW.origin,
      NEW.symbol, NEW.side, NEW.created_at)
     IS DISTINCT FROM
     (OLD.decision_id, OLD.account, OLD.client_order_id, OLD.broker_order_id, OLD.origin,
      OLD.symbol, OLD.side, OLD.created_at) THEN
    RAISE EXCEPTION 'execution %: identity never changes', OLD.client_order_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.cum_qty < OLD.cum_qty OR (OLD.terminal AND NOT NEW.terminal) THEN
    RAISE EXCEPTION 'execution %: % filled % cannot become % filled %', OLD.client_order_id,
      OLD.status, OLD.cum_qty, NEW.status, NEW.cum_qty USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_execution_guard() IS 'Fills are never taken back, a terminal order never lives again (P6).';
CREATE TRIGGER execution_guard BEFORE UPDATE ON executions
  FOR EACH ROW EXECUTE FUNCTION torghut_execution_guard();

CREATE TABLE execution_events (
  execution_event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  execution_id       bigint NOT NULL REFERENCES executions,
  event_key          text NOT NULL UNIQUE,
  source             text NOT NULL CHECK (source IN ('submit', 'lookup', 'rest', 'stream')),
  status             text NOT NULL,
  cum_qty            numeric(28,9) NOT NULL,
  avg_px             numeric(28,9),
  broker_updated_at  timestamptz,
  observed_at        timestamptz NOT NULL,
  raw                jsonb NOT NULL
);
COMMENT ON TABLE execution_events IS 'Observations of broker orders, append-only (P6); event_key is a pure function of the evidence, so seeing the same thing twice is one row.';
CREATE INDEX execution_events_execution ON execution_events (execution_id, execution_event_id);
CREATE TRIGGER execution_event_append_only BEFORE UPDATE OR DELETE ON execution_events
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER execution_event_append_only_all BEFORE TRUNCATE ON execution_events
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

CREATE TABLE fills (
  fill_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  activity_id     text NOT NULL UNIQUE,
  execution_id    bigint NOT NULL REFERENCES executions,
  decision_id     bigint REFERENCES trade_decisions,
  account         text NOT NULL,
  strategy        text NOT NULL,
  symbol          text NOT NULL,
  side            text NOT NULL CHECK (side IN ('buy', 'sell')),
  last_qty        numeric(28,9) NOT NULL CHECK (last_qty > 0 AND last_qty < 'Infinity'),
  last_px         numeric(28,9) NOT NULL CHECK (last_px >= 0 AND last_px < 'Infinity'),
  cum_qty         numeric(28,9) NOT NULL,
  leaves_qty      numeric(28,9) NOT NULL,
  transact_time   timestamptz NOT NULL,
  recorded_at     timestamptz NOT NULL,
  raw             jsonb NOT NULL
);
COMMENT ON TABLE fills IS 'The fill ledger: the broker''s FILL activities and nothing else, keyed by activity id (P8). Append-only.';
COMMENT ON COLUMN fills.strategy IS 'Strategy of the decision; empty for external orders.';
CREATE INDEX fills_execution ON fills (execution_id, fill_id);
CREATE INDEX fills_account_symbol ON fills (account, symbol, fill_id);
CREATE TRIGGER fill_append_only BEFORE UPDATE OR DELETE ON fills
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER fill_append_only_all BEFORE TRUNCATE ON fills
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

CREATE TABLE positions (
  account     text NOT NULL,
  symbol      text NOT NULL,
  qty         numeric(28,9) NOT NULL,
  cost_basis  numeric(56,18) NOT NULL,
  avg_px      numeric(28,9) NOT NULL,
  realized_pl numeric(56,18) NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (account, symbol)
);
COMMENT ON TABLE positions IS 'Fold of fills per account and symbol; qty is signed, short is negative.';

CREATE TABLE strategy_positions (
  account     text NOT NULL,
  strategy    text NOT NULL,
  symbol      text NOT NULL,
  qty         numeric(28,9) NOT NULL,
  cost_basis  numeric(56,18) NOT NULL,
  avg_px      numeric(28,9) NOT NULL,
  realized_pl numeric(56,18) NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (account, strategy, symbol)
);
COMMENT ON TABLE strategy_positions IS 'Fold of fills per account, strategy and symbol; the empty strategy holds external orders.';

-- ---------------------------------------------------------------- events, discrepancies

CREATE TABLE events (
  event_seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id       uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
  kind           text NOT NULL,
  schema_version smallint NOT NULL DEFAULT 1,
  account        text,
  decision_hash  text,
  actor          text NOT NULL,
  payload        jsonb NOT NULL,
  created_at     timestamptz NOT NULL,
  xact_id        xid8 NOT NULL DEFAULT pg_current_xact_id()
);
COMMENT ON TABLE events IS 'Outbox: what happened, written in the transaction of the change it reports (P9). Append-only; event_id is what a consumer dedupes on.';
COMMENT ON COLUMN events.xact_id IS 'Writing transaction; a reader that stays below pg_snapshot_xmin skips no row committed late.';
CREATE INDEX events_decision ON events (decision_hash, event_seq) WHERE decision_hash IS NOT NULL;
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON events
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER event_append_only_all BEFORE TRUNCATE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

CREATE TABLE discrepancies (
  discrepancy_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account        text NOT NULL,
  kind           text NOT NULL,
  subject        text NOT NULL,
  evidence       jsonb NOT NULL,
  opened_at      timestamptz NOT NULL,
  seen_at        timestamptz NOT NULL,
  resolved_at    timestamptz,
  resolution     text,
  CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
COMMENT ON TABLE discrepancies IS 'Differences between our books and the broker''s (P12): kind, subject, evidence, first and last seen, how resolved.';
CREATE UNIQUE INDEX discrepancies_open ON discrepancies (account, kind, subject) WHERE resolved_at IS NULL;

-- ---------------------------------------------------------------- control

CREATE TABLE trading_states (
  scope      text PRIMARY KEY CHECK (scope = 'global' OR scope LIKE 'account:%'),
  state      text NOT NULL CHECK (state IN ('active', 'reducing', 'halted')),
  actor      text NOT NULL,
  reason     text NOT NULL CHECK (reason <> ''),
  changed_at timestamptz NOT NULL
);
COMMENT ON TABLE trading_states IS 'What may be traded, global and per account; survives restarts, each change has an actor and a reason (P11). No row means active.';

CREATE TABLE account_leases (
  account       text PRIMARY KEY,
  owner         text,
  fencing_token bigint NOT NULL CHECK (fencing_token > 0),
  acquired_at   timestamptz NOT NULL,
  renewed_at    timestamptz NOT NULL,
  expires_at    timestamptz NOT NULL
);
COMMENT ON TABLE account_leases IS 'Which process may write an account''s verdicts and submissions, by Postgres''s clock. fencing_token grows with every change of owner.';

CREATE TABLE broker_accounts (
  account        text PRIMARY KEY,
  account_number text NOT NULL,
  status         text NOT NULL,
  currency       text NOT NULL,
  cash           numeric,
  equity         numeric,
  buying_power   numeric,
  blocked        boolean NOT NULL,
  positions      jsonb NOT NULL,
  raw            jsonb NOT NULL,
  observed_at    timestamptz NOT NULL
);
COMMENT ON TABLE broker_accounts IS 'Newest snapshot of the broker''s account and positions; observed_at is when the question was asked.';

CREATE TABLE broker_cursors (
  account    text NOT NULL,
  name       text NOT NULL CHECK (name IN ('orders', 'fills')),
  position   text NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (account, name)
);
COMMENT ON TABLE broker_cursors IS 'How far the broker''s lists were read; reading restarts with an overlap.';

CREATE TABLE strategy_ticks (
  strategy      text NOT NULL,
  scheduled_for timestamptz NOT NULL,
  outcome       text NOT NULL CHECK (outcome IN ('ran', 'skipped')),
  decisions     integer NOT NULL,
  claimed_by    text NOT NULL,
  claimed_at    timestamptz NOT NULL,
  PRIMARY KEY (strategy, scheduled_for)
);
COMMENT ON TABLE strategy_ticks IS 'Claimed strategy ticks: the row and the tick''s decisions are one transaction, so a tick runs once over replicas and restarts.';

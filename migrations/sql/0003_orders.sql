-- Order management. What somebody wants done to a standing order is a row before it is a call, and
-- the guard knows the same steps as torghut/domain/order_actions.py.

-- ---------------------------------------------------------------- actions

CREATE TABLE order_actions (
  action_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account         text NOT NULL,
  operation       text NOT NULL CHECK (operation IN ('cancel', 'replace')),
  decision_id     bigint REFERENCES trade_decisions,
  target          text NOT NULL,
  request_key     text NOT NULL,
  request         jsonb NOT NULL CHECK (jsonb_typeof(request) = 'object'),
  changes         jsonb CHECK (jsonb_typeof(changes) = 'object'),
  requested_by    text NOT NULL,
  reason          text NOT NULL CHECK (reason <> ''),
  status          text NOT NULL DEFAULT 'requested' CHECK (status IN (
                    'requested', 'sending', 'confirming', 'in_doubt', 'done', 'refused', 'moot')),
  status_reason   text,
  status_detail   text,
  broker_order_id text,
  client_order_id text UNIQUE,
  open_qty        numeric(28,9) CHECK (open_qty >= 0 AND open_qty < 'Infinity'),
  new_order_id    text,
  attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  looks           integer NOT NULL DEFAULT 0,
  misses          integer NOT NULL DEFAULT 0,
  fencing_token   bigint NOT NULL DEFAULT 0,
  due_at          timestamptz NOT NULL,
  in_doubt_since  timestamptz,
  outcome         text,
  http_status     integer,
  broker_code     text,
  message         text,
  created_at      timestamptz NOT NULL,
  sent_at         timestamptz,
  answered_at     timestamptz,
  updated_at      timestamptz NOT NULL,
  finalized_at    timestamptz,
  UNIQUE (account, request_key, target),
  CHECK ((operation = 'replace') = (changes IS NOT NULL)),
  CHECK (operation = 'replace' OR client_order_id IS NULL),
  CHECK (operation = 'cancel' OR decision_id IS NOT NULL),
  CHECK ((status IN ('done', 'refused', 'moot')) = (finalized_at IS NOT NULL)),
  CHECK (finalized_at IS NULL OR status_reason IS NOT NULL),
  CHECK ((status = 'in_doubt') = (in_doubt_since IS NOT NULL)),
  CHECK (status NOT IN ('sending', 'confirming', 'in_doubt')
         OR (attempts > 0 AND fencing_token > 0 AND broker_order_id IS NOT NULL)),
  CHECK (operation = 'cancel' OR attempts = 0 OR (client_order_id IS NOT NULL AND open_qty IS NOT NULL))
);
COMMENT ON TABLE order_actions IS 'One row per thing that somebody wants done to an order: cancel or replace. Intent is committed before each call, a replacement''s client_order_id too (P3). Rows are never deleted.';
COMMENT ON COLUMN order_actions.target IS 'What the request named: a decision_hash, or the broker''s id of an order that is not ours.';
COMMENT ON COLUMN order_actions.request_key IS 'The sender''s key: the same request under the same key gets the same rows again.';
COMMENT ON COLUMN order_actions.request IS 'The request as it came; another one under the same key is a conflict.';
COMMENT ON COLUMN order_actions.changes IS 'A replacement''s new values, canonical; what is absent stays as it is.';
COMMENT ON COLUMN order_actions.broker_order_id IS 'The order that is acted on; it moves on to the successor of an order that was replaced meanwhile.';
COMMENT ON COLUMN order_actions.client_order_id IS 'Of the order that a replacement makes: decision_hash, -r and a number. Recorded before the call, never changed.';
COMMENT ON COLUMN order_actions.open_qty IS 'Shares that the new order of a replacement has open at most; counted by risk while it is not known (P7).';
COMMENT ON COLUMN order_actions.new_order_id IS 'The broker''s id of the order that a replacement made.';
COMMENT ON COLUMN order_actions.looks IS 'Questions about the order since the last call; sets the backoff.';
COMMENT ON COLUMN order_actions.misses IS 'Definite "no such order" answers since the last call.';

CREATE INDEX order_actions_due ON order_actions (account, due_at, action_id)
  WHERE status IN ('requested', 'sending', 'confirming', 'in_doubt');
CREATE INDEX order_actions_sent ON order_actions (account, sent_at) WHERE operation = 'replace';
CREATE INDEX order_actions_decision ON order_actions (decision_id, action_id);
CREATE UNIQUE INDEX order_actions_one_replace ON order_actions (decision_id)
  WHERE operation = 'replace' AND status IN ('sending', 'in_doubt');

CREATE FUNCTION torghut_action_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.status <> 'requested' THEN
      RAISE EXCEPTION 'an action begins as requested, not as %', NEW.status
        USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF (NEW.account, NEW.operation, NEW.decision_id, NEW.target, NEW.request_key, NEW.request,
      NEW.changes, NEW.requested_by, NEW.reason, NEW.created_at)
     IS DISTINCT FROM
     (OLD.account, OLD.operation, OLD.decision_id, OLD.target, OLD.request_key, OLD.request,
      OLD.changes, OLD.requested_by, OLD.reason, OLD.created_at)
     OR (OLD.client_order_id IS NOT NULL
         AND NEW.client_order_id IS DISTINCT FROM OLD.client_order_id) THEN
    RAISE EXCEPTION 'action %: what was asked for never changes', OLD.action_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'requested>sending', 'requested>done', 'requested>refused', 'requested>moot',
      'sending>requested', 'sending>confirming', 'sending>in_doubt',
      'sending>done', 'sending>refused', 'sending>moot',
      'confirming>requested', 'confirming>done', 'confirming>refused', 'confirming>moot',
      'in_doubt>requested', 'in_doubt>confirming',
      'in_doubt>done', 'in_doubt>refused', 'in_doubt>moot'])) THEN
    RAISE EXCEPTION 'action %: the step % to % is not in its life cycle',
      OLD.action_id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fencing_token < OLD.fencing_token OR NEW.attempts < OLD.attempts THEN
    RAISE EXCEPTION 'action %: fencing token and attempts never decrease', OLD.action_id
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_action_guard() IS 'The transition table of torghut/domain/order_actions.py, and what was asked for stays.';
CREATE TRIGGER action_guard BEFORE INSERT OR UPDATE ON order_actions
  FOR EACH ROW EXECUTE FUNCTION torghut_action_guard();
CREATE TRIGGER action_kept BEFORE DELETE ON order_actions
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();
CREATE TRIGGER action_kept_all BEFORE TRUNCATE ON order_actions
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_no_delete();

-- ---------------------------------------------------------------- what hangs on them

-- validated by 0013_online: under this lock no row is read
ALTER TABLE risk_verdicts ADD COLUMN action_id bigint;
ALTER TABLE risk_verdicts ADD CONSTRAINT risk_verdicts_action_id_fkey
  FOREIGN KEY (action_id) REFERENCES order_actions NOT VALID;
COMMENT ON COLUMN risk_verdicts.action_id IS 'The replacement that was judged; null for the decision itself.';


-- ---------------------------------------------------------------- flattening

CREATE TABLE flattens (
  flatten_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account       text NOT NULL,
  request_key   text NOT NULL,
  requested_by  text NOT NULL,
  reason        text NOT NULL CHECK (reason <> ''),
  status        text NOT NULL DEFAULT 'requested' CHECK (status IN (
                  'requested', 'canceling', 'closing', 'done', 'failed')),
  status_detail text,
  rounds        integer NOT NULL DEFAULT 0 CHECK (rounds >= 0),
  fencing_token bigint NOT NULL DEFAULT 0,
  created_at    timestamptz NOT NULL,
  updated_at    timestamptz NOT NULL,
  finalized_at  timestamptz,
  UNIQUE (account, request_key),
  CHECK ((status IN ('done', 'failed')) = (finalized_at IS NOT NULL))
);
COMMENT ON TABLE flattens IS 'Requests to cancel every order of an account and close every position: where each one stands.';
COMMENT ON COLUMN flattens.rounds IS 'How many times closing decisions were planned.';
CREATE UNIQUE INDEX flattens_open ON flattens (account) WHERE finalized_at IS NULL;

CREATE FUNCTION torghut_flatten_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.account, NEW.request_key, NEW.requested_by, NEW.reason, NEW.created_at)
     IS DISTINCT FROM
     (OLD.account, OLD.request_key, OLD.requested_by, OLD.reason, OLD.created_at) THEN
    RAISE EXCEPTION 'flatten %: what was asked for never changes', OLD.flatten_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'requested>canceling', 'canceling>closing', 'closing>canceling', 'closing>done',
      'requested>failed', 'canceling>failed', 'closing>failed'])) THEN
    RAISE EXCEPTION 'flatten %: the step % to % is not in its life cycle',
      OLD.flatten_id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fencing_token < OLD.fencing_token OR NEW.rounds < OLD.rounds THEN
    RAISE EXCEPTION 'flatten %: fencing token and rounds never decrease', OLD.flatten_id
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_flatten_guard() IS 'requested, canceling, closing, done: a flattening goes one way, and back to canceling when an order appears meanwhile.';
CREATE TRIGGER flatten_guard BEFORE UPDATE ON flattens
  FOR EACH ROW EXECUTE FUNCTION torghut_flatten_guard();
CREATE TRIGGER flatten_kept BEFORE DELETE ON flattens
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();

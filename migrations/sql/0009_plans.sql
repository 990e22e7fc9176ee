-- Schema 0009. Sagas: steps that are done one after the other, or undone in reverse order; and the
-- rebalance plans that run on them. The guards know the steps of torghut/domain/sagas.py.

-- ---------------------------------------------------------------- sagas

CREATE TABLE sagas (
  saga_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind         text NOT NULL CHECK (kind <> ''),
  account      text NOT NULL,
  saga_key     text NOT NULL CHECK (length(saga_key) BETWEEN 1 AND 256),
  payload      jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
  digest       text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  status       text NOT NULL DEFAULT 'running' CHECK (status IN (
                 'running', 'compensating', 'completed', 'compensated')),
  failure      text,
  owner        text,
  token        bigint NOT NULL DEFAULT 0 CHECK (token >= 0),
  leased_until timestamptz,
  due_at       timestamptz NOT NULL,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  finalized_at timestamptz,
  UNIQUE (kind, account, saga_key),
  CHECK ((status IN ('completed', 'compensated')) = (finalized_at IS NOT NULL)),
  CHECK ((status IN ('compensating', 'compensated')) = (failure IS NOT NULL)),
  CHECK ((owner IS NULL) = (leased_until IS NULL))
);
COMMENT ON TABLE sagas IS 'One row per saga: it ends completed, with every step done, or compensated, with every step that began undone. Rows are never deleted.';
COMMENT ON COLUMN sagas.saga_key IS 'The starter''s key: the same again is the same saga.';
COMMENT ON COLUMN sagas.failure IS 'Why it is undone.';
COMMENT ON COLUMN sagas.token IS 'Grows with each claim; what is written under an older one is refused.';
COMMENT ON COLUMN sagas.leased_until IS 'By Postgres''s clock: until then nobody else takes the saga up.';
CREATE INDEX sagas_due ON sagas (account, due_at, saga_id) WHERE finalized_at IS NULL;

CREATE TABLE saga_steps (
  saga_id       bigint NOT NULL REFERENCES sagas,
  position      integer NOT NULL CHECK (position >= 0),
  name          text NOT NULL CHECK (name <> ''),
  status        text NOT NULL DEFAULT 'pending' CHECK (status IN (
                  'pending', 'running', 'done', 'failed', 'undoing', 'undone')),
  failures      integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  undo_failures integer NOT NULL DEFAULT 0 CHECK (undo_failures >= 0),
  result        jsonb,
  waits_for     text,
  error         text,
  started_at    timestamptz,
  ended_at      timestamptz,
  undone_at     timestamptz,
  PRIMARY KEY (saga_id, position),
  UNIQUE (saga_id, name),
  CHECK ((status = 'pending') = (started_at IS NULL)),
  CHECK ((status = 'undone') = (undone_at IS NOT NULL)),
  CHECK (status <> 'done' OR ended_at IS NOT NULL)
);
COMMENT ON TABLE saga_steps IS 'The steps of a saga in order. Each is committed as running before its action is called, and as undoing before its compensation is.';
COMMENT ON COLUMN saga_steps.failures IS 'Transient failures of the action so far; a process that died is not counted, as nobody knows how far it had come.';
COMMENT ON COLUMN saga_steps.waits_for IS 'What the step said that it waits for.';

CREATE FUNCTION torghut_saga_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.kind, NEW.account, NEW.saga_key, NEW.payload, NEW.digest, NEW.created_at)
     IS DISTINCT FROM
     (OLD.kind, OLD.account, OLD.saga_key, OLD.payload, OLD.digest, OLD.created_at)
     OR (OLD.failure IS NOT NULL AND NEW.failure IS DISTINCT FROM OLD.failure) THEN
    RAISE EXCEPTION 'saga %: what was begun never changes', OLD.saga_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'running>completed', 'running>compensating', 'compensating>compensated'])) THEN
    RAISE EXCEPTION 'saga %: the step % to % is not in its life cycle',
      OLD.saga_id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.token < OLD.token THEN
    RAISE EXCEPTION 'saga %: its token never decreases', OLD.saga_id
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status <> OLD.status AND NEW.finalized_at IS NOT NULL AND EXISTS (
      SELECT 1 FROM saga_steps s WHERE s.saga_id = NEW.saga_id AND CASE NEW.status
        WHEN 'completed' THEN s.status <> 'done' ELSE s.status NOT IN ('pending', 'undone') END) THEN
    RAISE EXCEPTION 'saga % is half done and cannot be %', OLD.saga_id, NEW.status
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_saga_guard() IS 'The transition table of torghut/domain/sagas.py; a saga never ends half done.';
CREATE TRIGGER saga_guard BEFORE UPDATE ON sagas
  FOR EACH ROW EXECUTE FUNCTION torghut_saga_guard();
CREATE TRIGGER saga_kept BEFORE DELETE ON sagas
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();

CREATE FUNCTION torghut_saga_step_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'pending>running', 'running>done', 'running>failed',
      'done>undoing', 'failed>undoing', 'undoing>undone'])) THEN
    RAISE EXCEPTION 'step % of saga %: % to % is not in its life cycle',
      OLD.name, OLD.saga_id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF (NEW.saga_id, NEW.position, NEW.name) <> (OLD.saga_id, OLD.position, OLD.name)
     OR (OLD.result IS NOT NULL AND NEW.result IS DISTINCT FROM OLD.result) THEN
    RAISE EXCEPTION 'step % of saga %: its name and its result never change',
      OLD.name, OLD.saga_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_saga_step_guard() IS 'A step goes one way: done, or undone.';
CREATE TRIGGER saga_step_guard BEFORE UPDATE ON saga_steps
  FOR EACH ROW EXECUTE FUNCTION torghut_saga_step_guard();
CREATE TRIGGER saga_step_kept BEFORE DELETE ON saga_steps
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();

-- ---------------------------------------------------------------- plans

CREATE TABLE plans (
  plan_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account        text NOT NULL,
  correlation_id text NOT NULL CHECK (length(correlation_id) BETWEEN 1 AND 128),
  strategy       text NOT NULL,
  event_ts       timestamptz NOT NULL,
  expires_at     timestamptz NOT NULL,
  payload        jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
  digest         text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  source         text NOT NULL,
  status         text NOT NULL DEFAULT 'working' CHECK (status IN (
                   'working', 'completed', 'stopped', 'undone')),
  status_detail  text,
  proceeds       numeric(38,9) CHECK (proceeds >= 0 AND proceeds < 'Infinity'),
  budget         numeric(38,9) CHECK (budget >= 0 AND budget < 'Infinity'),
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  finalized_at   timestamptz,
  UNIQUE (account, correlation_id),
  CHECK ((status = 'working') = (finalized_at IS NULL)),
  CHECK ((proceeds IS NULL) = (budget IS NULL))
);
COMMENT ON TABLE plans IS 'Rebalance plans: one per account and correlation_id, carried out by a saga of the kind plan whose key is plan_id. Rows are never deleted.';
COMMENT ON COLUMN plans.payload IS 'What was asked for, canonical; another one under the same correlation_id is a conflict.';
COMMENT ON COLUMN plans.proceeds IS 'What the sells brought, by their booked fills; null until all of them are settled.';
COMMENT ON COLUMN plans.budget IS 'What the buys may cost: the proceeds and the plan''s own cash.';
CREATE INDEX plans_created ON plans (account, plan_id);

CREATE TABLE plan_items (
  plan_id       bigint NOT NULL REFERENCES plans,
  position      integer NOT NULL CHECK (position >= 0),
  phase         text NOT NULL CHECK (phase IN ('sell', 'buy')),
  symbol        text NOT NULL,
  trade_amount  numeric(28,9) NOT NULL CHECK (trade_amount > 0 AND trade_amount < 'Infinity'),
  whole         boolean NOT NULL DEFAULT false,
  duplicate_of  integer,
  status        text NOT NULL CHECK (status IN (
                  'pending', 'placed', 'succeeded', 'failed', 'skipped', 'duplicate')),
  reason        text,
  detail        text,
  funded_amount numeric(28,9) CHECK (funded_amount >= 0 AND funded_amount < 'Infinity'),
  reference_px  numeric(28,9),
  qty           numeric(28,9) CHECK (qty > 0 AND qty < 'Infinity'),
  decision_hash text UNIQUE,
  filled_qty    numeric(28,9) NOT NULL DEFAULT 0,
  filled_value  numeric(38,9) NOT NULL DEFAULT 0,
  placed_at     timestamptz,
  settled_at    timestamptz,
  PRIMARY KEY (plan_id, position),
  FOREIGN KEY (plan_id, duplicate_of) REFERENCES plan_items,
  CHECK ((status = 'duplicate') = (duplicate_of IS NOT NULL)),
  CHECK (status NOT IN ('skipped', 'failed') OR reason IS NOT NULL),
  CHECK (status NOT IN ('placed', 'succeeded') OR decision_hash IS NOT NULL),
  CHECK ((decision_hash IS NULL) = (qty IS NULL)),
  CHECK (status NOT IN ('pending', 'skipped', 'duplicate') OR decision_hash IS NULL)
);
COMMENT ON TABLE plan_items IS 'The items of a plan and what became of each; one order at the most, its decision_hash.';
COMMENT ON COLUMN plan_items.whole IS 'The position is closed: all that is held, whatever the amount.';
COMMENT ON COLUMN plan_items.funded_amount IS 'What of a buy the budget covers.';
COMMENT ON COLUMN plan_items.reference_px IS 'The quote that the shares were computed from.';
CREATE UNIQUE INDEX plan_items_once ON plan_items (plan_id, phase, symbol, trade_amount)
  WHERE duplicate_of IS NULL;

CREATE FUNCTION torghut_plan_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.account, NEW.correlation_id, NEW.strategy, NEW.event_ts, NEW.expires_at, NEW.payload,
      NEW.digest, NEW.created_at)
     IS DISTINCT FROM
     (OLD.account, OLD.correlation_id, OLD.strategy, OLD.event_ts, OLD.expires_at, OLD.payload,
      OLD.digest, OLD.created_at)
     OR (OLD.status <> 'working' AND NEW.status <> OLD.status)
     OR (OLD.budget IS NOT NULL AND NEW.budget IS DISTINCT FROM OLD.budget) THEN
    RAISE EXCEPTION 'plan %: what was asked for, its budget and its end never change', OLD.plan_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER plan_guard BEFORE UPDATE ON plans
  FOR EACH ROW EXECUTE FUNCTION torghut_plan_guard();
CREATE TRIGGER plan_kept BEFORE DELETE ON plans
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();

CREATE FUNCTION torghut_plan_item_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.phase, NEW.symbol, NEW.trade_amount, NEW.whole, NEW.duplicate_of)
     IS DISTINCT FROM (OLD.phase, OLD.symbol, OLD.trade_amount, OLD.whole, OLD.duplicate_of)
     OR (OLD.decision_hash IS NOT NULL AND (NEW.decision_hash, NEW.qty)
         IS DISTINCT FROM (OLD.decision_hash, OLD.qty)) THEN
    RAISE EXCEPTION 'item % of plan %: what it is and its order never change',
      OLD.position, OLD.plan_id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status = ANY (ARRAY[
      'pending>placed', 'pending>skipped', 'pending>failed',
      'placed>succeeded', 'placed>failed'])) THEN
    RAISE EXCEPTION 'item % of plan %: % to % is not in its life cycle',
      OLD.position, OLD.plan_id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION torghut_plan_item_guard() IS 'An item has one order at the most, and what became of it stays.';
CREATE TRIGGER plan_item_guard BEFORE UPDATE ON plan_items
  FOR EACH ROW EXECUTE FUNCTION torghut_plan_item_guard();
CREATE TRIGGER plan_item_kept BEFORE DELETE ON plan_items
  FOR EACH ROW EXECUTE FUNCTION torghut_no_delete();

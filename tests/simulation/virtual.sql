-- What the simulation adds to a database of its own: Postgres's clock under our control, and a
-- history of every step, written by triggers, so that nothing of ours has to remember it.
-- The schema stands before pg_catalog in the search path of the simulation's connections.

CREATE SCHEMA virtual;

CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
  AS $$ SELECT pg_catalog.current_setting('virtual.now')::timestamptz $$;
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE
  AS $$ SELECT pg_catalog.current_setting('virtual.now')::timestamptz $$;

CREATE UNLOGGED TABLE virtual.history (
  seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account     text NOT NULL,
  kind        text NOT NULL,
  subject     text NOT NULL,
  before      text,
  after       text,
  token       bigint NOT NULL,
  token_before bigint,
  process     text NOT NULL,
  stamp       bigint NOT NULL,
  lease_owner text,
  lease_token bigint,
  lease_valid boolean,
  attempts    integer,
  due_at      timestamptz,
  doubt_since timestamptz,
  at          timestamptz NOT NULL
);
CREATE INDEX history_account ON virtual.history (account);

-- plpgsql, because it plans its statement once and a function in SQL each time
CREATE FUNCTION virtual.remember(
  account text, kind text, subject text, before text, after text, token bigint,
  token_before bigint, attempts integer, due_at timestamptz, doubt_since timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO virtual.history (account, kind, subject, before, after, token, token_before, process,
    stamp, lease_owner, lease_token, lease_valid, attempts, due_at, doubt_since, at)
  SELECT $1, $2, $3, $4, $5, $6, $7,
    split_part(current_setting('virtual.who'), ' ', 1),
    split_part(current_setting('virtual.who'), ' ', 2)::bigint, l.owner, l.fencing_token,
    l.expires_at > virtual.clock_timestamp(), $8, $9, $10, virtual.clock_timestamp()
  FROM (SELECT 1) one LEFT JOIN public.account_leases l ON l.account = $1;
END $$;

CREATE FUNCTION virtual.decision_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM virtual.remember(NEW.account, 'decision', NEW.decision_hash, NULL, NEW.status,
      NEW.fencing_token, NULL, NEW.attempts, NEW.updated_at, NULL);
  ELSE
    PERFORM virtual.remember(NEW.account, 'decision', NEW.decision_hash, OLD.status, NEW.status,
      NEW.fencing_token, OLD.fencing_token, NEW.attempts, NEW.updated_at,
      coalesce(NEW.in_doubt_since, OLD.in_doubt_since));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER decision_moved AFTER INSERT OR UPDATE ON public.trade_decisions
  FOR EACH ROW EXECUTE FUNCTION virtual.decision_moved();

CREATE FUNCTION virtual.attempt_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM virtual.remember(d.account, 'attempt', d.decision_hash, NULL, NEW.operation,
    NEW.fencing_token, NULL, NEW.attempt_no, NEW.intended_at, NULL)
  FROM public.trade_decisions d WHERE d.decision_id = NEW.decision_id;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_made AFTER INSERT ON public.submission_attempts
  FOR EACH ROW EXECUTE FUNCTION virtual.attempt_made();

-- before the change: what the lease was is what decides whether it may change
CREATE FUNCTION virtual.lease_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.owner IS NOT DISTINCT FROM OLD.owner THEN
    RETURN NEW;
  END IF;
  PERFORM virtual.remember(NEW.account, 'lease', NEW.account,
    CASE TG_OP WHEN 'UPDATE' THEN OLD.owner END, NEW.owner, NEW.fencing_token,
    CASE TG_OP WHEN 'UPDATE' THEN OLD.fencing_token END, NULL, NULL, NULL);
  RETURN NEW;
END $$;
CREATE TRIGGER lease_changed BEFORE INSERT OR UPDATE ON public.account_leases
  FOR EACH ROW EXECUTE FUNCTION virtual.lease_changed();

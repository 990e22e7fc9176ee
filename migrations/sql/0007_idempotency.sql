-- Schema 0007. Idempotency keys; the same as torghut.idempotency.schema makes elsewhere.

CREATE SEQUENCE idempotency_tokens AS bigint;
COMMENT ON SEQUENCE idempotency_tokens IS 'Fencing tokens: each attempt under any key gets a greater one.';

CREATE TABLE idempotency_keys (
  scope        text NOT NULL CHECK (length(scope) <= 256),
  key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
  digest       text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  state        text NOT NULL CHECK (state IN ('pending', 'in_progress', 'completed', 'failed')),
  in_doubt     boolean NOT NULL,
  atomic       boolean NOT NULL,
  attempts     integer NOT NULL CHECK (attempts > 0),
  token        bigint NOT NULL,
  owner        text NOT NULL,
  leased_until timestamptz,
  head         jsonb,
  body         bytea,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (scope, key),
  CONSTRAINT idempotency_keys_lease CHECK ((state = 'in_progress') = (leased_until IS NOT NULL)),
  CONSTRAINT idempotency_keys_result CHECK (
    (state IN ('completed', 'failed')) = (head IS NOT NULL) AND (body IS NULL OR head IS NOT NULL)),
  CONSTRAINT idempotency_keys_doubt CHECK (
    NOT in_doubt OR state IN ('pending', 'in_progress'))
);
COMMENT ON TABLE idempotency_keys IS 'One row per idempotency key and scope: who works under it, and the result that is replayed until expires_at. in_doubt: an attempt ended before its result was stored. atomic: the attempt commits effect and result together, so its death leaves no doubt.';
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE FUNCTION idempotency_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state IN ('completed', 'failed') AND OLD.expires_at > clock_timestamp()
    AND (NEW.state, NEW.digest, NEW.token, NEW.head, NEW.body)
      IS DISTINCT FROM (OLD.state, OLD.digest, OLD.token, OLD.head, OLD.body) THEN
    RAISE EXCEPTION 'the result under this key is stored and not expired'
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.token < OLD.token THEN
    RAISE EXCEPTION 'a fencing token does not decrease' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION idempotency_guard() IS 'A stored result stays until it expires; fencing tokens only grow.';
CREATE TRIGGER idempotency_guard BEFORE UPDATE ON idempotency_keys
  FOR EACH ROW EXECUTE FUNCTION idempotency_guard();

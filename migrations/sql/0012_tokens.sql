-- Schema 0012. Bearer tokens of the HTTP interface, and the key of the console's cookies.

CREATE TABLE api_tokens (
  token_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name         text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
  digest       bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
  scopes       text[] NOT NULL CHECK (
    cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'submit', 'operate']),
  made_by      text NOT NULL,
  made_at      timestamptz NOT NULL,
  expires_at   timestamptz CHECK (expires_at > made_at),
  last_used_at timestamptz,
  revoked_at   timestamptz,
  revoked_by   text,
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON TABLE api_tokens IS 'Bearer tokens by their SHA-256: the tokens themselves are nowhere. A name is never used again, so that it means one token in the books for good.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'To the minute.';

CREATE FUNCTION api_tokens_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'a token is revoked, never deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  IF (NEW.token_id, NEW.name, NEW.digest, NEW.scopes, NEW.made_by, NEW.made_at)
    IS DISTINCT FROM (OLD.token_id, OLD.name, OLD.digest, OLD.scopes, OLD.made_by, OLD.made_at)
    OR NEW.expires_at IS DISTINCT FROM OLD.expires_at THEN
    RAISE EXCEPTION 'a token stays as it was made' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked token stays revoked' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION api_tokens_guard() IS 'A token is made and revoked; nothing else of it changes but when it was last used.';
CREATE TRIGGER api_tokens_guard BEFORE UPDATE OR DELETE ON api_tokens
  FOR EACH ROW EXECUTE FUNCTION api_tokens_guard();

CREATE TABLE console_keys (
  single  boolean PRIMARY KEY DEFAULT true CHECK (single),
  key     bytea NOT NULL CHECK (octet_length(key) = 32),
  made_at timestamptz NOT NULL
);
COMMENT ON TABLE console_keys IS 'What the console signs its cookies with; one row, made by the first daemon. Delete it and every session ends.';

-- who only reads reads no key
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'torghut_ro') THEN
    REVOKE ALL ON console_keys, api_tokens FROM torghut_ro;
  END IF;
END $$;

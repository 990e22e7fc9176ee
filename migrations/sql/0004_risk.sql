-- Schema 0004_risk. What verdicts need to be judged again, and what limits count.

CREATE TABLE risk_policies (
  policy_version text PRIMARY KEY,
  policy         jsonb NOT NULL,
  first_used_at  timestamptz NOT NULL
);
COMMENT ON TABLE risk_policies IS 'The policy behind each policy_version of risk_verdicts: a verdict is judged again under it, byte for byte. Append-only.';
CREATE TRIGGER policy_append_only BEFORE UPDATE OR DELETE ON risk_policies
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER policy_append_only_all BEFORE TRUNCATE ON risk_policies
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

ALTER TABLE risk_verdicts
  ADD COLUMN facts_id text,
  ADD COLUMN wanted jsonb;
COMMENT ON COLUMN risk_verdicts.wanted IS 'The order that was judged where it is a replacement (action_id), null for the decision''s own.';
COMMENT ON COLUMN risk_verdicts.facts_id IS 'Hash of the facts and reservations of this verdict; null for verdicts stored before schema 0004_risk, which cannot be judged again.';

CREATE TABLE order_counts (
  account  text NOT NULL,
  strategy text NOT NULL,
  day      date NOT NULL,
  orders   bigint NOT NULL CHECK (orders > 0),
  PRIMARY KEY (account, day, strategy)
) WITH (fillfactor = 50);
COMMENT ON TABLE order_counts IS 'Decisions sent for the first time, by New York day; written in the transaction of the intent.';

ALTER TABLE broker_accounts
  ADD COLUMN peak_equity numeric,
  ADD COLUMN marks jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN broker_accounts.peak_equity IS 'Highest equity seen since a person last resumed the account; max_drawdown_pct is measured from it.';
COMMENT ON COLUMN broker_accounts.marks IS 'Current price per position, as the broker gives it.';


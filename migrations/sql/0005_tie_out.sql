-- Schema 0005_tie_out. What changes positions and cash besides fills, and what is compared.

CREATE TABLE account_entries (
  entry_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account     text NOT NULL,
  entry_key   text NOT NULL,
  kind        text NOT NULL CHECK (kind <> ''),
  symbol      text,
  qty         numeric(28,9) NOT NULL DEFAULT 0,
  px          numeric(28,9) CHECK (px >= 0 AND px < 'Infinity'),
  cash        numeric(56,18) NOT NULL DEFAULT 0,
  occurred_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL,
  actor       text NOT NULL,
  reason      text NOT NULL,
  raw         jsonb NOT NULL,
  UNIQUE (account, entry_key),
  CHECK (qty = 0 OR symbol IS NOT NULL),
  CHECK (qty > '-Infinity' AND qty < 'Infinity' AND cash > '-Infinity' AND cash < 'Infinity')
);
COMMENT ON TABLE account_entries IS 'What changed positions or cash without a fill: the opening (kind OPENING: what stood before the first comparison), the broker''s other activities under their types (CFEE, DIV, CSD ...), and differences that a person accepted (ADJUSTMENT). Append-only.';
COMMENT ON COLUMN account_entries.entry_key IS 'The broker''s activity id, or a pure function of the evidence: the same entry is one row.';
COMMENT ON COLUMN account_entries.px IS 'What a unit is worth in the cost of the position; null: nothing. It moves no cash.';
COMMENT ON COLUMN account_entries.cash IS 'What came into the account''s cash, below zero for what left it.';
CREATE INDEX account_entries_recorded ON account_entries (account, recorded_at);
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE ON account_entries
  FOR EACH ROW EXECUTE FUNCTION torghut_append_only();
CREATE TRIGGER entry_append_only_all BEFORE TRUNCATE ON account_entries
  FOR EACH STATEMENT EXECUTE FUNCTION torghut_append_only();

CREATE TABLE tie_out_looks (
  account     text NOT NULL,
  kind        text NOT NULL,
  subject     text NOT NULL,
  differences jsonb NOT NULL CHECK (jsonb_typeof(differences) = 'array'),
  looks       integer NOT NULL CHECK (looks >= 0),
  observed_at timestamptz NOT NULL,
  PRIMARY KEY (account, kind, subject)
);
COMMENT ON TABLE tie_out_looks IS 'Amounts of which one look at the broker''s answer is not enough: what the difference may be, by how many looks. A row goes when the amount is surely equal.';
COMMENT ON COLUMN tie_out_looks.observed_at IS 'When the newest answer that was looked at was asked for; an answer counts once.';

ALTER TABLE broker_accounts ADD COLUMN entry_pxs jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN broker_accounts.entry_pxs IS 'Average entry price per position, as the broker gives it.';

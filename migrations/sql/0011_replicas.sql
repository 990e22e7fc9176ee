-- Schema 0011_replicas. Which processes live, and which accounts each of them can trade.

CREATE TABLE replicas (
  owner      text PRIMARY KEY CHECK (owner <> ''),
  accounts   text[] NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz NOT NULL
);
COMMENT ON TABLE replicas IS 'The processes that are there, owners and stand-bys, so that accounts are spread over them. Nothing is safe or unsafe because of it: who may write for an account says account_leases alone.';
COMMENT ON COLUMN replicas.accounts IS 'Labels of the accounts that the process could own: configured, and not refused by the broker.';
COMMENT ON COLUMN replicas.expires_at IS 'Prolonged while the process lives; after it the process does not count.';

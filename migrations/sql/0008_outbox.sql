-- Schema 0008_outbox. The relay: a cursor for each sink, and the events that a sink refused.

CREATE TABLE outbox_cursors (
  sink             text PRIMARY KEY CHECK (sink <> ''),
  cluster          bigint NOT NULL,
  base             pg_snapshot NOT NULL,
  target           pg_snapshot,
  after_seq        bigint NOT NULL DEFAULT 0 CHECK (after_seq >= 0),
  last_seq         bigint NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
  restored_base    pg_snapshot,
  restored_through bigint NOT NULL DEFAULT 0 CHECK (restored_through >= 0),
  delivered        bigint NOT NULL DEFAULT 0 CHECK (delivered >= 0),
  delivered_at     timestamptz,
  failures         integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  retry_at         timestamptz,
  last_error       text,
  last_error_at    timestamptz,
  owner            text,
  lease_token      bigint NOT NULL DEFAULT 0,
  lease_until      timestamptz
);
COMMENT ON TABLE outbox_cursors IS 'How far each sink has been given the events, and who is giving them. torghut/services/relay.py says why nothing is skipped and the order holds.';
COMMENT ON COLUMN outbox_cursors.base IS 'Events of transactions that this snapshot sees were given.';
COMMENT ON COLUMN outbox_cursors.target IS 'The window being given: events that it sees and base does not, in the order of event_seq. None: it is worked off.';
COMMENT ON COLUMN outbox_cursors.after_seq IS 'Events of the window up to here were given.';
COMMENT ON COLUMN outbox_cursors.last_seq IS 'The newest event of the window.';
COMMENT ON COLUMN outbox_cursors.cluster IS 'The database cluster whose transaction numbers the snapshots hold.';
COMMENT ON COLUMN outbox_cursors.restored_base IS 'base of the cluster that a dump came from, while its events are being given.';
COMMENT ON COLUMN outbox_cursors.restored_through IS 'Events up to here came with a dump: their xact_id are of another cluster.';
COMMENT ON COLUMN outbox_cursors.lease_until IS 'By Postgres''s clock; it spares others the work. Order and completeness do not rest on it.';

CREATE TABLE dead_letters (
  dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sink           text NOT NULL,
  event_seq      bigint NOT NULL,
  event_id       uuid NOT NULL,
  kind           text NOT NULL,
  decision_hash  text,
  status         text NOT NULL DEFAULT 'dead' CHECK (status IN ('dead', 'retrying', 'delivered', 'dropped')),
  error          text NOT NULL,
  refusals       integer NOT NULL DEFAULT 1 CHECK (refusals > 0),
  died_at        timestamptz NOT NULL,
  tried_at       timestamptz NOT NULL,
  settled_at     timestamptz,
  CHECK ((status IN ('delivered', 'dropped')) = (settled_at IS NOT NULL)),
  UNIQUE (sink, event_seq)
);
COMMENT ON TABLE dead_letters IS 'Events that a sink refused for good. A person has them tried again or drops them; who and why are events of their own.';
CREATE INDEX dead_letters_open ON dead_letters (sink, status, event_seq)
  WHERE status IN ('dead', 'retrying');

CREATE TABLE decision_inbox (
  inbox_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account       text NOT NULL DEFAULT 'paper',
  body          text NOT NULL CHECK (octet_length(body) <= 262144),
  inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  result        text CHECK (result IN ('created', 'replayed', 'conflict', 'invalid')),
  decision_hash text,
  error         text,
  answered_at   timestamptz,
  CHECK ((result IS NULL) = (answered_at IS NULL)),
  CHECK (result IS NULL OR (result = 'invalid') = (decision_hash IS NULL))
);
COMMENT ON TABLE decision_inbox IS 'Decisions by INSERT, from any language: account and body (decision JSON) in; result, decision_hash and error come back in the transaction that stores the decision.';
COMMENT ON COLUMN decision_inbox.account IS 'TORGHUT_ACCOUNT of the daemon that is to take it.';
CREATE INDEX decision_inbox_waiting ON decision_inbox (account, inbox_id) WHERE result IS NULL;
